package main

import (
	"bytes"
	"fmt"
	"log"
	"slices"
	"strings"

	"github.com/basalt-redis/basalt/internal/acl"
	"github.com/basalt-redis/basalt/proxy/command/snapshot"
)

// rulesSource writes the commands that ACL rules can name, with their
// categories, in the order of the table, so that an index means the same here
// and there. later are those that the server itself does not have.
func rulesSource(redis, later snapshot.Snapshot) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, generated, redis.Version, "acl")
	b.WriteString("var commands = [...]Command{\n")
	categories, names := acl.Categories(), redis.Names()
	for i, name := range names {
		var bits uint32
		for _, c := range redis.Commands[name].Info.Items[snapshot.InfoCategories].Items {
			at := slices.Index(categories, strings.TrimPrefix(c.Text, "@"))
			if at < 0 {
				log.Fatalf("gen: %s is in category %s, which package acl does not know", name, c.Text)
			}
			bits |= 1 << at
		}
		fmt.Fprintf(&b, "{Name: %q, Categories: %#x", name, bits)
		end := i + 1
		for end < len(names) && strings.HasPrefix(names[end], name+"|") {
			end++
		}
		if end > i+1 {
			fmt.Fprintf(&b, ", First: %d, End: %d", i+1, end)
		}
		if _, is := later.Commands[name]; is {
			b.WriteString(", Later: true")
		}
		b.WriteString("},\n")
	}
	b.WriteString("}\n")
	return b.Bytes()
}
