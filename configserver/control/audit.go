package control

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/basalt-redis/basalt/configserver/topology"
)

// Who changed what.
//
// A call of the API carries who asked for it in its context. Every commit that it
// makes compares the record before and after, so that no change of what admins decide
// (policy, configuration, nodes, operations; users.go does it for users) goes without an event that says
// what it was, what it is, and who asked. Passwords are never in it, nor their sums.

type askedByKey struct{}

// AskedBy returns a context for a call that who asked for: an address, until callers
// have names.
func AskedBy(ctx context.Context, who string) context.Context {
	return context.WithValue(ctx, askedByKey{}, who)
}

// Asker is who asked for a call; "" when nobody did.
func Asker(ctx context.Context) string {
	who, _ := ctx.Value(askedByKey{}).(string)
	return who
}

// signed are events with who asked for what they tell of.
func signed(events []topology.Event, by string) []topology.Event {
	if by == "" {
		return events
	}
	events = slices.Clone(events)
	for i := range events {
		events[i].By = cmp.Or(events[i].By, by)
	}
	return events
}

// maxAudited bounds the events and maxAuditedText the bytes of each that one change
// makes, whoever sends how much.
const (
	maxAudited     = 16
	maxAuditedText = 1000
)

// audit is what a change of the record did to what admins decide.
func audit(before, after *topology.Cluster) (events []topology.Event) {
	tell := func(kind, shard, node, format string, args ...any) {
		events = append(events, topology.Event{Time: time.Now(), Kind: kind, Severity: topology.Info, Shard: shard, Node: node, Epoch: after.Epoch,
			Message: cut(fmt.Sprintf(format, args...))})
	}
	if changes := differences(policyFields(before.Policy), policyFields(after.Policy)); len(changes) > 0 {
		tell("PolicyChanged", "", "", "policy: %s", strings.Join(changes, ", "))
	}
	if changes := differences(settingsOfRecord(before), settingsOfRecord(after)); len(changes) > 0 {
		tell("ConfigChanged", "", "", "configuration: %s", strings.Join(changes, ", "))
	}
	if after.Phase == topology.Deleting && before.Phase != topology.Deleting {
		tell("ClusterDeleted", "", "", "cluster %s is deleted", after.Name)
	}
	for i := range after.Shards {
		s := &after.Shards[i]
		was := before.ShardAt(i, s.ID)
		if was == nil {
			continue // its nodes are told of as registered
		}
		if op := s.Operation; op != nil && op.Kind != topology.Rotation && (was.Operation == nil || was.Operation.ID != op.ID || was.Operation.Requested != op.Requested || was.Operation.AcceptLoss != op.AcceptLoss) {
			tell("OperationAsked", s.ID, "", "%s of %s%s", op.Kind, s.ID, wishOf(op))
		}
		for j := range s.Nodes {
			n := &s.Nodes[j]
			old := was.Node(n.ID)
			if old == nil {
				continue
			}
			if old.Readable != n.Readable {
				tell("NodeReadableChanged", s.ID, n.ID, "%s: readable %t → %t", n.ID, old.Readable, n.Readable)
			}
			if old.Discard != n.Discard && n.Discard != "" {
				tell("NodeDiscardAllowed", s.ID, n.ID, "%s: what the server at %s holds may be discarded", n.ID, n.Address)
			}
		}
	}
	if more := len(events) - maxAudited; more > 0 {
		events = events[:maxAudited]
		events[maxAudited-1].Message += fmt.Sprintf("; and %d more changes", more)
	}
	return events
}

// cut bounds a text.
func cut(text string) string {
	if len(text) <= maxAuditedText {
		return text
	}
	return strings.ToValidUTF8(text[:maxAuditedText], "") + "…"
}

// wishOf is what an admin wants of an operation.
func wishOf(op *topology.Operation) string {
	text := ""
	if to := cmp.Or(op.Candidate, op.Requested); to != "" {
		text = fmt.Sprintf(": %s → %s", op.OldMaster, to)
	}
	if op.AcceptLoss {
		text += ", with loss"
	}
	return text
}

// differences lists what is not the same in two sets of named values, in the order of
// the names.
func differences(before, after map[string]string) (list []string) {
	names := slices.Sorted(maps.Keys(before))
	for name := range after {
		if _, ok := before[name]; !ok {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	for _, name := range names {
		was, had := before[name]
		is, has := after[name]
		switch {
		case had && has && was != is:
			list = append(list, fmt.Sprintf("%s: %s → %s", name, was, is))
		case had && !has:
			list = append(list, fmt.Sprintf("%s: %s → none", name, was))
		case has && !had:
			list = append(list, fmt.Sprintf("%s: none → %s", name, is))
		}
	}
	return list
}

// policyFields are the settings of a policy, as the record names them.
func policyFields(p topology.Policy) map[string]string {
	fields := map[string]json.RawMessage{}
	if data, err := json.Marshal(p); err == nil {
		_ = json.Unmarshal(data, &fields)
	}
	out := map[string]string{}
	for name, value := range fields {
		out[name] = strings.Trim(string(value), `"`)
	}
	for name, d := range map[string]time.Duration{
		"probeInterval": p.ProbeInterval, "hungAfter": p.HungAfter, "ackTimeout": p.AckTimeout, "failoverPeriod": p.FailoverPeriod,
		"maxReplicaAge": p.MaxReplicaAge, "restartGrace": p.RestartGrace, "electionWait": p.ElectionWait, "keepDiverged": p.KeepDiverged,
	} {
		out[name] = d.String()
	}
	return out
}

func settingsOfRecord(c *topology.Cluster) map[string]string {
	out := map[string]string{}
	for _, s := range c.Settings {
		out[s.Name] = fmt.Sprintf("%q", s.Value)
	}
	return out
}

// sums are the sums of passwords in a user's rules.
var sums = regexp.MustCompile(`#[0-9a-f]{64}`)

// userChanges are what changed of users, without the sums of their passwords.
func userChanges(before, after *topology.Cluster) []string {
	rules := func(c *topology.Cluster) map[string]string {
		out := map[string]string{}
		for _, u := range c.Users {
			name, rules, _ := strings.Cut(strings.TrimPrefix(u.Rules, "user "), " ")
			out[fmt.Sprintf("%q", name)] = rules
		}
		return out
	}
	was, is := rules(before), rules(after)
	var other []string
	for _, m := range []map[string]string{was, is} {
		for name := range m {
			if was[name] != is[name] && sums.ReplaceAllString(was[name], "#…") == sums.ReplaceAllString(is[name], "#…") && !slices.Contains(other, name+": other passwords") {
				other = append(other, name+": other passwords")
			}
		}
	}
	for _, m := range []map[string]string{was, is} {
		for name, text := range m {
			m[name] = sums.ReplaceAllString(text, "#…")
		}
	}
	slices.Sort(other)
	return append(differences(was, is), other...)
}
