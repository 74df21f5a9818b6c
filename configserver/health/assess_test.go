package health

import (
	"bufio"
	"strings"
	"testing"
	"time"

	"github.com/basalt-redis/basalt/configserver/redisadmin"
	"github.com/basalt-redis/basalt/configserver/topology"
)

var now = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// scene is a shard of a master m, whose connections have been refused for
// 100 ms, and a replica r that saw its link break.
func scene() (*topology.Cluster, *topology.Shard, *Observations) {
	c := &topology.Cluster{Policy: topology.DefaultPolicy(), Shards: []topology.Shard{{ID: "s", Master: "m", Nodes: []topology.Node{
		{ID: "m", Address: "m:1", Incarnation: "rm"}, {ID: "r", Address: "r:1", Incarnation: "rr"}}}}}
	refused := now.Add(-100 * time.Millisecond)
	o := &Observations{ID: "cs", Started: now.Add(-time.Hour), Nodes: map[string]Node{
		"m": {Probe: Probe{Sight: topology.SightRefused, Detail: "connection refused", Heard: refused, Refused: 3, RefusedSince: refused}},
		"r": {Probe: Probe{Sight: topology.SightOK, Heard: now, InfoAt: now, Info: redisadmin.Info{RunID: "rr", MasterAddress: "m:1", LastIO: -1}}},
	}}
	return c, &c.Shards[0], o
}

// elsewhere: another process answers at another place than the master was at.
func elsewhere(n *Node) {
	n.Probe = Probe{Sight: topology.SightOK, Heard: now, InfoAt: now, Info: redisadmin.Info{RunID: "new"}, Endpoint: "10.0.0.9:1"}
}

func TestAssessMaster(t *testing.T) {
	change := func(o *Observations, id string, f func(n *Node)) {
		n := o.Nodes[id]
		f(&n)
		o.Nodes[id] = n
	}
	// silent for a time behind a SORT that a proxy sent just before.
	silent := func(o *Observations, d time.Duration) {
		change(o, "m", func(n *Node) {
			n.Probe = Probe{Sight: topology.SightOK, Heard: now.Add(-d), Asked: now.Add(-d), HostAt: now.Add(-time.Second), Info: redisadmin.Info{RunID: "rm"}}
			n.Proxies = map[string]ProxySight{"p": {Sight: topology.SightTimeout, At: now, ReplyAt: now.Add(-d)}}
			n.Behind = map[string]Behind{"p": {Command: "sort", Sent: now.Add(-d - 100*time.Millisecond), At: now}}
		})
		change(o, "r", func(n *Node) { n.Info.LinkUp, n.Info.LastIO, n.Info.LinkDownFor = true, d, -1 })
	}
	busy := func(o *Observations) { silent(o, 5*time.Second) }
	for _, tc := range []struct {
		name string
		make func(o *Observations)
		want Verdict
	}{
		{"all agree", func(*Observations) {}, Dead},
		{"the replica's link is up", func(o *Observations) {
			change(o, "r", func(n *Node) { n.Info.LinkUp, n.Info.LastIO = true, 0 })
		}, Unreachable},
		{"the replica's link is up and silent", func(o *Observations) {
			change(o, "r", func(n *Node) { n.Info.LinkUp, n.Info.LastIO = true, 4*time.Second })
		}, Dead},
		{"the replica was not asked yet", func(o *Observations) {
			change(o, "r", func(n *Node) { n.InfoAt = now.Add(-time.Second) })
		}, Suspect},
		{"the replica cannot be asked", func(o *Observations) {
			change(o, "r", func(n *Node) { n.Sight = topology.SightTimeout })
		}, Dead},
		{"the replica follows somebody else", func(o *Observations) {
			change(o, "r", func(n *Node) { n.Info.MasterAddress, n.Info.LinkUp = "x:1", true })
		}, Dead},
		{"the replica restarted", func(o *Observations) {
			change(o, "r", func(n *Node) { n.Info.RunID, n.Info.LinkUp = "other", true })
		}, Dead},
		{"a proxy gets replies", func(o *Observations) {
			change(o, "m", func(n *Node) {
				n.Proxies = map[string]ProxySight{"p": {Sight: topology.SightOK, At: now, ReplyAt: now}}
			})
		}, Unreachable},
		{"a proxy got replies before", func(o *Observations) {
			change(o, "m", func(n *Node) {
				n.Proxies = map[string]ProxySight{"p": {Sight: topology.SightOK, At: now.Add(-time.Second), ReplyAt: now.Add(-time.Second)}}
			})
		}, Dead},
		{"a proxy is refused, too", func(o *Observations) {
			change(o, "m", func(n *Node) { n.Proxies = map[string]ProxySight{"p": {Sight: topology.SightRefused, At: now}} })
		}, Dead},
		{"refused twice", func(o *Observations) { change(o, "m", func(n *Node) { n.Refused = 2 }) }, Suspect},
		{"an answer makes it alive", func(o *Observations) {
			change(o, "m", func(n *Node) {
				n.Probe = Probe{Sight: topology.SightOK, Heard: now, Info: redisadmin.Info{RunID: "rm"}}
			})
		}, Alive},
		{"another incarnation", func(o *Observations) {
			change(o, "m", func(n *Node) {
				n.Probe = Probe{Sight: topology.SightOK, Heard: now, Info: redisadmin.Info{RunID: "new"}}
			})
		}, Restarted},
		{"another incarnation elsewhere", func(o *Observations) { change(o, "m", elsewhere) }, Restarted},
		{"another incarnation elsewhere, the replica's link is up", func(o *Observations) {
			change(o, "m", elsewhere)
			change(o, "r", func(n *Node) { n.Info.LinkUp, n.Info.LastIO = true, 0 })
		}, Unreachable},
		{"another incarnation elsewhere, a proxy gets replies", func(o *Observations) {
			change(o, "m", func(n *Node) {
				elsewhere(n)
				n.Proxies = map[string]ProxySight{"p": {Sight: topology.SightOK, At: now.Add(-time.Second), ReplyAt: now.Add(-time.Second)}}
			})
		}, Unreachable},
		{"silent for a while", func(o *Observations) {
			change(o, "m", func(n *Node) {
				n.Probe = Probe{Sight: topology.SightOK, Heard: now.Add(-2 * time.Second), Info: redisadmin.Info{RunID: "rm"}}
			})
		}, Slow},
		{"silent for long, the replica hears nothing either", func(o *Observations) {
			change(o, "m", func(n *Node) {
				n.Probe = Probe{Sight: topology.SightOK, Heard: now.Add(-5 * time.Second), Info: redisadmin.Info{RunID: "rm"}}
			})
			change(o, "r", func(n *Node) { n.Info.LinkUp, n.Info.LastIO = true, 4*time.Second })
		}, Hung},
		{"silent for long, the replica hears it", func(o *Observations) {
			change(o, "m", func(n *Node) {
				n.Probe = Probe{Sight: topology.SightOK, Heard: now.Add(-5 * time.Second), Info: redisadmin.Info{RunID: "rm"}}
			})
			change(o, "r", func(n *Node) { n.Info.LinkUp, n.Info.LastIO = true, time.Second })
		}, Unreachable},
		{"silent for long, a proxy's last reply came a moment later", func(o *Observations) {
			last := now.Add(-5 * time.Second)
			change(o, "m", func(n *Node) {
				n.Probe = Probe{Sight: topology.SightOK, Heard: last, Info: redisadmin.Info{RunID: "rm"}}
				n.Proxies = map[string]ProxySight{"p": {Sight: topology.SightOK, At: last.Add(80 * time.Millisecond), ReplyAt: last.Add(80 * time.Millisecond)}}
			})
			change(o, "r", func(n *Node) { n.Info.LinkUp, n.Info.LastIO = true, 4*time.Second })
		}, Hung},
		{"silent for long, a proxy gets replies", func(o *Observations) {
			change(o, "m", func(n *Node) {
				n.Probe = Probe{Sight: topology.SightOK, Heard: now.Add(-5 * time.Second), Info: redisadmin.Info{RunID: "rm"}}
				n.Proxies = map[string]ProxySight{"p": {Sight: topology.SightOK, At: now.Add(-time.Second), ReplyAt: now.Add(-time.Second)}}
			})
			change(o, "r", func(n *Node) { n.Info.LinkUp, n.Info.LastIO = true, 4*time.Second })
		}, Unreachable},
		{"silent behind a command that takes long", busy, Busy},
		{"silent behind it, nearly as long as a busy one may be", func(o *Observations) { silent(o, 29900*time.Millisecond) }, Busy},
		{"silent behind it, as long as a busy one may be", func(o *Observations) { silent(o, 30*time.Second) }, Hung},
		{"silent behind it, and its host is gone", func(o *Observations) {
			busy(o)
			change(o, "m", func(n *Node) { n.HostAt = now.Add(-3 * time.Second) })
		}, Hung},
		{"silent behind it, this Configserver was stopped meanwhile", func(o *Observations) {
			silent(o, 15*time.Second)
			change(o, "m", func(n *Node) { n.HostAt = now.Add(-12200 * time.Millisecond) })
			o.Pauses = []Interval{{now.Add(-12 * time.Second), now.Add(-2 * time.Second)}}
		}, Busy},
		{"silent behind it, a replica lost its link with the first second", func(o *Observations) {
			busy(o)
			change(o, "r", func(n *Node) { n.Info.LinkUp, n.Info.LastIO, n.Info.LinkDownFor = false, -1, 4*time.Second })
		}, Hung},
		{"silent behind it, a replica gave up its silent master", func(o *Observations) {
			silent(o, 15*time.Second)
			change(o, "r", func(n *Node) { n.Info.LinkUp, n.Info.LastIO, n.Info.LinkDownFor = false, -1, 5*time.Second })
		}, Busy},
		{"silent, and a command that takes long was sent later", func(o *Observations) {
			busy(o)
			change(o, "m", func(n *Node) {
				n.Behind["p"] = Behind{Command: "keys", Sent: now.Add(-4500 * time.Millisecond), At: now.Add(-time.Second)}
			})
		}, Hung},
		{"silent, and a command that takes long was answered before", func(o *Observations) {
			busy(o)
			change(o, "m", func(n *Node) {
				n.Behind["p"] = Behind{Command: "sort", Sent: now.Add(-20 * time.Second), At: now.Add(-5500 * time.Millisecond)}
			})
		}, Hung},
		{"silent, another proxy has a reply from after it was told", func(o *Observations) {
			busy(o)
			change(o, "m", func(n *Node) {
				n.Heard, n.Asked = now.Add(-10*time.Second), now.Add(-10*time.Second)
				n.Behind["p"] = Behind{Command: "sort", Sent: now.Add(-10 * time.Second), At: now.Add(-5 * time.Second)}
				n.Proxies["q"] = ProxySight{Sight: topology.SightTimeout, At: now, ReplyAt: now.Add(-4100 * time.Millisecond)}
			})
			change(o, "r", func(n *Node) { n.Info.LastIO = 5 * time.Second })
		}, Hung},
		{"silent behind the second of two that take long", func(o *Observations) {
			busy(o)
			change(o, "m", func(n *Node) {
				n.Behind["p"] = Behind{Command: "sort", Sent: now.Add(-12 * time.Second), At: now.Add(-time.Second)}
			})
		}, Busy},
		{"silent behind what a proxy that is gone had sent", func(o *Observations) {
			busy(o)
			change(o, "m", func(n *Node) {
				n.Proxies = nil
				n.Behind["p"] = Behind{Command: "sort", Sent: now.Add(-5100 * time.Millisecond), At: now.Add(-3900 * time.Millisecond)}
			})
		}, Busy},
		{"silent behind what one proxy of two sent", func(o *Observations) {
			busy(o)
			change(o, "m", func(n *Node) {
				n.Proxies["a"] = ProxySight{Sight: topology.SightTimeout, At: now, ReplyAt: now.Add(-5 * time.Second)}
				n.Behind["a"] = Behind{Command: "keys", Sent: now.Add(-time.Second), At: now}
			})
		}, Busy},
		{"a proxy that claims something new again and again", func(o *Observations) {
			silent(o, 31*time.Second)
			change(o, "m", func(n *Node) { n.Behind["p"] = Behind{Command: "sort", Sent: now.Add(-time.Hour), At: now} })
		}, Hung},
		{"silent, and proxies wait for nothing that takes long", func(o *Observations) {
			busy(o)
			o.Nodes["m"].Behind["p"] = Behind{}
		}, Hung},
		{"silent behind it, and a replica hears the master", func(o *Observations) {
			busy(o)
			change(o, "r", func(n *Node) { n.Info.LastIO = time.Second })
		}, Unreachable},
		{"silent for long, but this Configserver has just begun to look", func(o *Observations) {
			change(o, "m", func(n *Node) { n.Probe = Probe{} })
			o.Started = now.Add(-500 * time.Millisecond)
		}, Alive},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c, s, o := scene()
			tc.make(o)
			a := AssessMaster(c, s, o, now)
			if a.Verdict != tc.want {
				t.Errorf("%s, want %s: %+v", a.Verdict, tc.want, a)
			}
			if a.Verdict != Alive && len(a.Evidence) == 0 {
				t.Error("no evidence")
			}
		})
	}
}

func TestSilence(t *testing.T) {
	at := func(s int) time.Time { return now.Add(time.Duration(s) * time.Second) }
	o := &Observations{Started: at(-100), Pauses: []Interval{{at(-20), at(-15)}, {at(-6), at(-4)}}}
	for _, tc := range []struct{ heard, want int }{{0, 0}, {-3, 3}, {-5, 4}, {-10, 8}, {-18, 13}, {-30, 23}, {-1000, 93}} {
		if got := o.Silence(&Probe{Heard: at(tc.heard)}, now); got != time.Duration(tc.want)*time.Second {
			t.Errorf("heard %d s ago: silence %v, want %d s", -tc.heard, got, tc.want)
		}
	}
}

func FuzzReadReply(f *testing.F) {
	for _, seed := range []string{"+PONG\r\n", "-BUSY x\r\n", ":1\r\n", "$3\r\nabc\r\n", "$-1\r\n", "*2\r\n+a\r\n:2\r\n", "*1\r\n$9223372036854775807\r\n", "*1\r\n$-2\r\n", "$99999999999\r\n", "*-5\r\n"} {
		f.Add(seed)
	}
	f.Fuzz(func(_ *testing.T, text string) {
		in := bufio.NewReader(strings.NewReader(text))
		for {
			if _, err := readReply(in, 0); err != nil {
				return
			}
		}
	})
}
