package health

import (
	"fmt"
	"strings"
	"testing"

	"github.com/basalt-redis/basalt/configserver/topology"
)

// TestEvidenceOfManyProxies: it does not grow with their number, and still tells
// how many saw what.
func TestEvidenceOfManyProxies(t *testing.T) {
	c, s, o := scene()
	m := o.Nodes["m"]
	m.Proxies = map[string]ProxySight{}
	for i := range 1000 {
		p := ProxySight{Sight: topology.SightRefused, At: now, Detail: fmt.Sprintf("port %d: connection refused", i)}
		switch {
		case i%100 == 7:
			p.Sight, p.Detail = topology.SightTimeout, strings.Repeat("é", 5000)
		case i == 3:
			p = ProxySight{Sight: topology.SightOK, At: now, ReplyAt: now}
		}
		m.Proxies[fmt.Sprintf("p%03d", i)] = p
	}
	o.Nodes["m"] = m
	a := AssessMaster(c, s, o, now)
	if a.Verdict != Unreachable {
		t.Errorf("%s, although one of the proxies gets replies", a.Verdict)
	}
	var told []string
	for _, e := range a.Evidence {
		told = append(told, fmt.Sprintf("%s: %s %.40s", e.VantagePoint, e.Sight, e.Detail))
		if len(e.Detail) > 300 {
			t.Errorf("%s has %d bytes of detail", e.VantagePoint, len(e.Detail))
		}
	}
	want := `configserver cs: refused connection refused, 3 times in a row wit
replica r: refused link down
proxy p003: ok replies arrive
proxies p000, p001, p002 and 986 more: refused p000 says: port 0: connection refused
proxies p007, p107, p207 and 7 more: timeout ` + strings.Repeat("é", 40)
	if got := strings.Join(told, "\n"); got != want {
		t.Errorf("told:\n%s\nwant:\n%s", got, want)
	}
}

func TestEvidenceOfFewProxies(t *testing.T) {
	c, s, o := scene()
	m := o.Nodes["m"]
	m.Proxies = map[string]ProxySight{}
	for i := range singly {
		m.Proxies[fmt.Sprint("p", i)] = ProxySight{Sight: topology.SightRefused, At: now}
	}
	o.Nodes["m"] = m
	a := AssessMaster(c, s, o, now)
	if len(a.Evidence) != 2+singly || a.Evidence[2].VantagePoint != "proxy p0" {
		t.Errorf("evidence %+v", a.Evidence)
	}
}
