package health

import (
	"fmt"
	"slices"
	"strings"

	"github.com/basalt-redis/basalt/configserver/topology"
)

// Evidence of proxies is kept in the record while an operation lasts, and a rack
// that burns begins many operations at once. However many proxies there are, their
// part of it is small.
const (
	// singly is how many proxies are listed one by one; more are counted by what
	// they saw.
	singly = 8
	// examples is how many of those that are counted are named.
	examples = 3
	// longest is how many bytes of a detail are kept; proxies send it.
	longest = 200
)

// sights is the order in which they are told: who reaches the node first.
var sights = []topology.Sight{
	topology.SightOK, topology.SightRefused, topology.SightTimeout, topology.SightFenced, topology.SightUnknown,
}

// testimony sums up what proxies saw. ids are in order, said is by id.
func testimony(ids []string, said map[string]topology.Evidence) []topology.Evidence {
	var list []topology.Evidence
	if len(ids) <= singly {
		for _, id := range ids {
			e := said[id]
			e.VantagePoint, e.Detail = "proxy "+id, cut(e.Detail)
			list = append(list, e)
		}
		return list
	}
	for _, sight := range sights {
		alike := slices.DeleteFunc(slices.Clone(ids), func(id string) bool { return said[id].Sight != sight })
		if len(alike) == 0 {
			continue
		}
		e := topology.Evidence{VantagePoint: "proxies " + topology.Few(alike, examples), Sight: sight, Detail: cut(said[alike[0]].Detail)}
		if len(alike) == 1 {
			e.VantagePoint = "proxy " + alike[0]
		} else if slices.ContainsFunc(alike, func(id string) bool { return said[id].Detail != said[alike[0]].Detail }) {
			e.Detail = fmt.Sprintf("%s says: %s", alike[0], e.Detail)
		}
		list = append(list, e)
	}
	return list
}

func cut(detail string) string { return cutTo(detail, longest) }

func cutTo(text string, longest int) string {
	if len(text) <= longest {
		return text
	}
	return strings.ToValidUTF8(text[:longest], "") + "…"
}
