package clients

import (
	"fmt"
	"slices"
	"strings"
	"sync"
)

// table collects what became of each client and feature.
type table struct {
	mu      sync.Mutex
	clients []string
	cells   map[[2]string]string
}

func (b *table) set(client, feature, state string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.cells == nil {
		b.cells = map[[2]string]string{}
	}
	if !slices.Contains(b.clients, client) {
		b.clients = append(b.clients, client)
	}
	b.cells[[2]string{client, feature}] = state
}

// print shows clients as columns and features as rows.
func (b *table) print(features []string) string {
	b.mu.Lock()
	defer b.mu.Unlock()
	var s strings.Builder
	fmt.Fprintf(&s, "%-13s", "")
	for _, c := range b.clients {
		fmt.Fprintf(&s, " %-10s", c)
	}
	for _, f := range features {
		fmt.Fprintf(&s, "\n%-13s", f)
		for _, c := range b.clients {
			state := b.cells[[2]string{c, f}]
			if state == "" {
				state = "not run"
			}
			fmt.Fprintf(&s, " %-10s", state)
		}
	}
	return s.String()
}
