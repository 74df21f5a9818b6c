package configclient

import "time"

// Proxy is one proxy of the cluster, this one included.
type Proxy struct {
	// ID of the process, and where clients reach it.
	ID, Address string
}

// staleAfter is how long the list of proxies is believed without a
// Configserver: a proxy that has ended since must not be recommended for ever.
const staleAfter = 10 * time.Second

// Proxies are those that are connected to the Configserver, in order of their
// ids; nil when that is not known any more.
func (c *Client) Proxies() []Proxy {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.status.Server == "" && time.Since(c.lost) > staleAfter {
		return nil
	}
	return c.proxies
}

// meet takes note of the proxies of a state, which need not differ from the one
// before in anything else.
func (c *Client) meet(next state) {
	list := make([]Proxy, 0, len(next.proxies.GetProxies()))
	for _, p := range next.proxies.GetProxies() {
		list = append(list, Proxy{ID: p.GetId(), Address: p.GetAddress()})
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.state.proxies, c.proxies = next.proxies, list
}
