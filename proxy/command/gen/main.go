// Command gen writes the proxy's command table. The facts are those of the
// snapshot in ../snapshot, which -server refreshes from a redis-server; what the
// proxy does with each command is decided in overlay.go.
package main

import (
	"bytes"
	"flag"
	"fmt"
	"go/format"
	"log"
	"os"
	"slices"
	"strings"

	"github.com/basalt-redis/basalt/proxy/command/snapshot"
)

func main() {
	log.SetFlags(0)
	table := flag.String("table", "", "write the table to this `file`")
	replies := flag.String("replies", "", "write the replies of COMMAND to this `file`")
	rules := flag.String("acl", "", "write the commands that ACL rules name to this `file`")
	server := flag.String("server", "", "read the snapshot from the server at `host:port` first")
	snap := flag.String("snapshot", "snapshot/redis.json", "where -server writes the snapshot")
	flag.Parse()
	if err := run(*table, *replies, *rules, *server, *snap); err != nil {
		log.Fatal("gen: ", err)
	}
}

func run(table, replies, rules, server, snap string) error {
	redis, err := snapshot.Redis()
	if err != nil && server == "" {
		return err
	}
	if server != "" {
		if redis, err = snapshot.Fetch(server); err != nil {
			return err
		}
		text, err := redis.MarshalJSON()
		if err != nil {
			return err
		}
		if err := os.WriteFile(snap, append(text, '\n'), 0o644); err != nil {
			return err
		}
	}
	additions, err := snapshot.Additions()
	if err != nil {
		return err
	}
	for name, c := range additions.Commands {
		if _, known := redis.Commands[name]; known {
			delete(additions.Commands, name) // it only has more forms in later servers
		}
		redis.Commands[name] = c
	}
	specs, err := build(redis)
	if err != nil {
		return err
	}
	if err := write(table, tableSource(redis.Version, specs)); err != nil {
		return err
	}
	if err := write(replies, repliesSource(redis, specs)); err != nil {
		return err
	}
	return write(rules, rulesSource(redis, additions))
}

// spec is a row of the table.
type spec struct {
	name             string
	arity            int64
	decision         decision
	write, readOnly  bool
	blocking, noAuth bool
	hidden           bool
	first            int64
	keys             []string
	subs             int
}

func build(s snapshot.Snapshot) (specs []spec, err error) {
	for name := range byName {
		if _, ok := s.Commands[name]; !ok {
			return nil, fmt.Errorf("overlay.go decides about %q, which the server does not have", name)
		}
	}
	names := s.Names()
	for _, name := range names {
		c := s.Commands[name]
		items := c.Info.Items
		flags := items[snapshot.InfoFlags]
		isContainer := slices.ContainsFunc(names, func(n string) bool { return strings.HasPrefix(n, name+"|") })
		keySpecs := items[snapshot.InfoKeySpecs].Items
		d, ok := decisionFor(name, isContainer, len(keySpecs) > 0)
		if !ok {
			return nil, fmt.Errorf("%s has no keys and overlay.go does not decide about it", name)
		}
		row := spec{
			name: name, arity: items[snapshot.InfoArity].Int, decision: d,
			readOnly: flags.Has("readonly"), blocking: flags.Has("blocking"), noAuth: flags.Has("no_auth"),
			hidden: flags.Has("admin") || flags.Has("skip_monitor"),
		}
		for _, n := range names {
			if strings.HasPrefix(n, name+"|") {
				row.subs++
			}
		}
		// Scripts have neither flag; who does not only read may write.
		row.write = flags.Has("write") || (d.kind == "Keyed" || d.kind == "Script") && !row.readOnly
		if row.keys, err = keySpecSources(name, keySpecs, d.rule); err != nil {
			return nil, err
		}
		row.first = onlyKey(keySpecs, d)
		specs = append(specs, row)
	}
	// A refused container with a subcommand that is not refused exists.
	for i, row := range specs {
		for _, sub := range specs[i+1 : i+1+row.subs] {
			if sub.decision.kind != "Unsupported" {
				specs[i].decision = decision{kind: "Local"}
			}
		}
	}
	return specs, nil
}

// onlyKey returns the index of the only key of a command that has just one, at
// a fixed place; else 0.
func onlyKey(keySpecs []snapshot.Value, d decision) int64 {
	if len(keySpecs) != 1 || d.rule != "" {
		return 0
	}
	begin, find := keySpecs[0].Get("begin_search"), keySpecs[0].Get("find_keys")
	if begin.Get("type").Text != "index" || find.Get("type").Text != "range" || find.Get("spec").Get("lastkey").Int != 0 {
		return 0
	}
	return begin.Get("spec").Get("index").Int
}

// keySpecSources returns the key specifications as Go source.
func keySpecSources(name string, keySpecs []snapshot.Value, rule string) (sources []string, err error) {
	for _, ks := range keySpecs {
		begin, find := ks.Get("begin_search"), ks.Get("find_keys")
		bs, fs := begin.Get("spec"), find.Get("spec")
		var b strings.Builder
		switch t := begin.Get("type").Text; t {
		case "index":
			fmt.Fprintf(&b, "index: %d", bs.Get("index").Int)
		case "keyword":
			fmt.Fprintf(&b, "keyword: %q, index: %d", bs.Get("keyword").Text, bs.Get("startfrom").Int)
		case "unknown":
			if rule != "ruleSort" {
				return nil, fmt.Errorf("%s: keys at unknown places need a rule in package command", name)
			}
			continue
		default:
			return nil, fmt.Errorf("%s: begin_search of type %q", name, t)
		}
		switch t := find.Get("type").Text; t {
		case "range":
			fmt.Fprintf(&b, ", last: %d, step: %d", fs.Get("lastkey").Int, fs.Get("keystep").Int)
			if limit := fs.Get("limit").Int; limit > 0 {
				fmt.Fprintf(&b, ", limit: %d", limit)
			}
		case "keynum":
			fmt.Fprintf(&b, ", find: findKeynum, keynum: %d, first: %d, step: %d",
				fs.Get("keynumidx").Int, fs.Get("firstkey").Int, fs.Get("keystep").Int)
		default:
			return nil, fmt.Errorf("%s: find_keys of type %q", name, t)
		}
		var flags []string
		for _, f := range ks.Get("flags").Items {
			flags = append(flags, f.Text)
		}
		fmt.Fprintf(&b, ", flags: %q", strings.Join(flags, " "))
		sources = append(sources, "{"+b.String()+"}")
	}
	return sources, nil
}

const generated = "// Code generated by proxy/command/gen from redis-server %s. DO NOT EDIT.\n\npackage %s\n\n"

func tableSource(version string, specs []spec) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, generated, version, "command")
	fmt.Fprintf(&b, "// ServerVersion is the version of the server the table was generated from.\nconst ServerVersion = %q\n\n", version)
	b.WriteString("var specs = [...]Spec{\n")
	for i, s := range specs {
		fmt.Fprintf(&b, "{Name: %q, ID: %d, Arity: %d, Kind: %s", s.name, i, s.arity, s.decision.kind)
		for _, f := range []struct {
			name string
			on   bool
		}{{"Write", s.write}, {"ReadOnly", s.readOnly}, {"Blocking", s.blocking}, {"Hidden", s.hidden}, {"NoAuth", s.noAuth}} {
			if f.on {
				fmt.Fprintf(&b, ", %s: true", f.name)
			}
		}
		if at := cursors[s.name]; at > 0 {
			fmt.Fprintf(&b, ", Cursor: %d", at)
		}
		if s.decision.rule != "" {
			fmt.Fprintf(&b, ", rule: %s", s.decision.rule)
		}
		if s.first > 0 {
			fmt.Fprintf(&b, ", first: %d", s.first)
		}
		if len(s.keys) > 0 {
			fmt.Fprintf(&b, ", keys: []keySpec{%s}", strings.Join(s.keys, ", "))
		}
		if s.subs > 0 {
			fmt.Fprintf(&b, ", subFirst: %d, subEnd: %d", i+1, i+1+s.subs)
		}
		if s.decision.reason != "" {
			fmt.Fprintf(&b, ",\nReason: %q", s.decision.reason)
		}
		b.WriteString("},\n")
	}
	b.WriteString("}\n")
	return b.Bytes()
}

// repliesSource writes, for each command, what COMMAND INFO and COMMAND DOCS say
// about it in RESP3, without subcommands.
func repliesSource(redis snapshot.Snapshot, specs []spec) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, generated, redis.Version, "introspect")
	b.WriteString("// described are the commands by command.Spec.ID.\nvar described = map[int]description{\n")
	for i, s := range specs {
		c := redis.Commands[s.name]
		var info []byte
		for _, item := range c.Info.Items[:snapshot.InfoSubcommands] {
			info = item.Append(info)
		}
		var docs []byte
		for _, item := range c.Docs.Items {
			docs = item.Append(docs)
		}
		fmt.Fprintf(&b, "// %s\n%d: {docFields: %d, info: %q,\ndocs: %q},\n", s.name, i, len(c.Docs.Items)/2, info, docs)
	}
	b.WriteString("}\n")
	return b.Bytes()
}

func write(path string, source []byte) error {
	if path == "" {
		return nil
	}
	formatted, err := format.Source(source)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return os.WriteFile(path, formatted, 0o644)
}
