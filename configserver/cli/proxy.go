package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	basaltv1 "github.com/basalt-redis/basalt/proto/basalt/v1"
)

func (a *app) proxyCommand() *cobra.Command {
	return group("proxy", "List proxies, and forget those that are gone", a.proxyList(), a.proxyForget())
}

func (a *app) proxyList() *cobra.Command {
	return &cobra.Command{
		Use: "list [CLUSTER]", Aliases: []string{"ls"}, Short: "List proxies and since when they are away", Args: between(0, 1),
		RunE: a.about(callTimeout, 0, func(ctx context.Context, name string, _ []string) error {
			s, err := a.status(ctx, name)
			if err != nil {
				return err
			}
			if a.output == "json" {
				return a.printProxies(s.GetProxies())
			}
			return a.proxyTable(s.GetProxies(), 0).print(a.out)
		}),
	}
}

// printProxies prints a list of the API's messages.
func (a *app) printProxies(proxies []*basaltv1.ProxyStatus) error {
	list := make([]json.RawMessage, 0, len(proxies))
	for _, p := range proxies {
		data, err := protoJSON(p)
		if err != nil {
			return err
		}
		list = append(list, data)
	}
	return a.printJSON(map[string]any{"proxies": list})
}

func (a *app) proxyForget() *cobra.Command {
	return &cobra.Command{
		Use: "forget [CLUSTER] PROXY", Short: "Shut a proxy that is away out at the servers, and wait for it no more", Args: between(1, 2),
		Long: `Shut a proxy that is away out at the servers, and wait for it no more. PROXY is its
id or its address.

One that died is forgotten by itself within seconds. One that has connections to
servers is cut off from the Configserver and serves its clients on, for ten minutes
at most: this command ends that at once.`,
		RunE: a.about(operationTimeout, 1, func(ctx context.Context, name string, rest []string) error {
			s, err := a.status(ctx, name)
			if err != nil {
				return err
			}
			id, err := findProxy(s.GetProxies(), rest[0])
			if err != nil {
				return err
			}
			reply, err := call(ctx, a.clusters().ForgetProxy, &basaltv1.ForgetProxyRequest{Cluster: name, Proxy: id})
			switch {
			case err != nil:
				return err
			case a.output == "json":
				return a.printProto(reply)
			}
			return a.say("%s is forgotten", id)
		}),
	}
}

// findProxy finds the id of a proxy by that, by its beginning or by an address.
func findProxy(proxies []*basaltv1.ProxyStatus, name string) (string, error) {
	var found []string
	for _, p := range proxies {
		switch {
		case p.GetId() == name:
			return name, nil
		case p.GetAddress() == name, name != "" && strings.HasPrefix(p.GetId(), name):
			found = append(found, p.GetId())
		}
	}
	switch len(found) {
	case 0:
		return "", fmt.Errorf("there is no proxy %s; `basaltctl proxy list` shows those there are", name)
	case 1:
		return found[0], nil
	}
	return "", usagef("%s is one of several proxies: name %s", name, strings.Join(found, " or "))
}

// proxyTable shows proxies, with at most so many letters of their ids; 0 for all.
func (a *app) proxyTable(proxies []*basaltv1.ProxyStatus, letters int) *table {
	t := newTable("PROXY", "ADDRESS", "ACKED", "CLIENTS", "STATE", "VERSION").numbers(2, 3)
	for _, p := range proxies {
		id := p.GetId()
		if letters > 0 {
			id = short(id, letters)
		}
		t.row(id, orDash(p.GetAddress()), fmt.Sprint(p.GetAckedEpoch()), fmt.Sprint(p.GetClients()), a.stateOf(p), orDash(p.GetVersion()))
	}
	return t
}

// stateOf says if a proxy is there.
func (a *app) stateOf(p *basaltv1.ProxyStatus) string {
	state := "connected"
	if !p.GetConnected() {
		state = "away"
		if at := p.GetAwaySince(); at != nil {
			state += fmt.Sprintf(" since %s (%s)", at.AsTime().Local().Format("15:04:05"), a.age(at))
		}
		if p.GetServing() {
			state += ", has connections to servers"
		}
	}
	if p.GetShutOut() {
		state += ", shut out"
		if open := p.GetOpenShards(); len(open) > 0 {
			state += ", not yet of " + strings.Join(open[:min(3, len(open))], ", ")
			if more := len(open) - 3; more > 0 {
				state += fmt.Sprintf(" and %d more", more)
			}
		}
	}
	return state
}
