package ads_test

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/lateen-mesh/lateen/control/ads"
)

// both runs a case in either form of the protocol.
func both(t *testing.T, name string, lines []string, f func(*fixture, *client)) {
	t.Helper()
	for _, form := range []struct {
		name  string
		delta bool
	}{{"delta", true}, {"state of the world", false}} {
		t.Run(name+", "+form.name, func(t *testing.T) {
			run(t, lines, func(x *fixture) {
				c := x.connect(form.delta)
				defer c.cancel()
				f(x, c)
			})
		})
	}
}

// started subscribes as a proxy does at its start, and acknowledges.
func (c *client) started(lines ...string) {
	c.t.Helper()
	for _, line := range lines {
		f := strings.Fields(line)
		var names []string
		if f[0] != "CDS" && f[0] != "LDS" {
			for _, r := range f[1:] {
				name, _, _ := strings.Cut(r, "=")
				names = append(names, name)
			}
		}
		c.ask(f[0], names...)
		c.want(line)
		c.ack(f[0])
	}
	c.quiet()
}

var base = []string{"CDS a=1 b=1", "EDS a=x b=x", "LDS l=1", "RDS r=1", "SDS s=1"}

func TestSubscribe(t *testing.T) {
	both(t, "wildcard CDS and LDS, EDS, RDS and SDS by name", base, func(x *fixture, c *client) {
		c.started(base...)
	})
	both(t, "an empty wildcard is answered", nil, func(x *fixture, c *client) {
		c.ask("LDS")
		c.want("LDS")
	})
	both(t, "more names bring only those", base, func(x *fixture, c *client) {
		c.started("EDS a=x")
		if c.delta {
			c.ask("EDS", "b")
		} else {
			c.ask("EDS", "a", "b")
		}
		c.want("EDS b=x")
	})
	both(t, "an explicit star is the wildcard", base, func(x *fixture, c *client) {
		c.ask("CDS", "*")
		c.want("CDS a=1 b=1")
	})
	both(t, "a type that is not served is answered with nothing", base, func(x *fixture, c *client) {
		c.ask("type.googleapis.com/envoy.service.runtime.v3.Runtime", "r")
		if c.delta {
			c.want("type.googleapis.com/envoy.service.runtime.v3.Runtime -r")
		} else {
			c.want("type.googleapis.com/envoy.service.runtime.v3.Runtime")
		}
	})
	t.Run("delta: a missing name is answered by its removal, and sent when it exists", func(t *testing.T) {
		run(t, base, func(x *fixture) {
			c := x.connect(true)
			defer c.cancel()
			c.ask("RDS", "none")
			c.want("RDS -none")
			c.ack("RDS")
			c.quiet()
			x.push(everything, "RDS none=1")
			c.want("RDS none=1")
		})
	})
	t.Run("state of the world: a missing name is answered by a response without it", func(t *testing.T) {
		run(t, base, func(x *fixture) {
			c := x.connect(false)
			defer c.cancel()
			c.ask("RDS", "none")
			c.want("RDS")
			c.ack("RDS")
			x.push(everything, "RDS none=1")
			c.want("RDS none=1")
		})
	})
	t.Run("delta: unsubscribing the star leaves the explicit names", func(t *testing.T) {
		run(t, base, func(x *fixture) {
			c := x.connect(true)
			defer c.cancel()
			c.ask("CDS", "*", "b")
			c.want("CDS a=1 b=1")
			c.ack("CDS")
			c.send(request{typ: "CDS", unsubscribe: []string{"*"}})
			c.quiet()
			x.push(everything, "CDS a=2 b=2 c=1")
			c.want("CDS b=2")
		})
	})
	t.Run("delta: an explicit name unsubscribed under a wildcard is told again", func(t *testing.T) {
		run(t, base, func(x *fixture) {
			c := x.connect(true)
			defer c.cancel()
			c.ask("CDS", "*", "b", "none")
			c.want("CDS a=1 b=1 -none")
			c.ack("CDS")
			c.send(request{typ: "CDS", unsubscribe: []string{"b", "none"}})
			c.want("CDS b=1 -none")
		})
	})
	t.Run("delta: an unsubscribed name is not sent any more", func(t *testing.T) {
		run(t, base, func(x *fixture) {
			c := x.connect(true)
			defer c.cancel()
			c.started("EDS a=x b=x")
			c.send(request{typ: "EDS", unsubscribe: []string{"a"}})
			x.push(everything, "EDS a=y b=y")
			c.want("EDS b=y")
		})
	})
}

func TestPush(t *testing.T) {
	both(t, "EN-057 order CDS, EDS, LDS, RDS, SDS", base, func(x *fixture, c *client) {
		c.started(base...)
		x.push(everything, "CDS a=2 b=2", "EDS a=y b=y", "LDS l=2", "RDS r=2", "SDS s=2")
		c.want("CDS a=2 b=2", "EDS a=y b=y", "LDS l=2", "RDS r=2", "SDS s=2")
	})
	both(t, "nothing changed, nothing sent", base, func(x *fixture, c *client) {
		c.started(base...)
		x.push(everything)
		c.quiet()
		if got := x.server.Conns()[0].Applied; got != 2 {
			x.t.Errorf("applied generation %d, want 2", got)
		}
	})
	both(t, "a change generates only the types that read its kinds", base, func(x *fixture, c *client) {
		c.started(base...)
		x.world.asked = nil
		x.push(ads.Change{Kinds: []string{"VirtualService"}}, "CDS a=9 b=9", "RDS r=2")
		c.want("RDS r=2")
		c.ack("RDS")
		c.quiet()
		if got := strings.Join(x.world.asked, " "); got != "RDS" {
			x.t.Errorf("generated %q, want RDS alone", got)
		}
		if got := x.server.Conns()[0].Applied; got != 2 {
			x.t.Errorf("applied generation %d, want 2", got)
		}
	})
	both(t, "pushes that pile up are merged", base, func(x *fixture, c *client) {
		c.started("RDS r=1")
		for _, v := range []string{"2", "3", "4"} {
			x.set(t, "RDS r="+v)
		}
		for range 3 {
			x.server.Push(everything)
		}
		c.want("RDS r=4")
		c.ack("RDS")
		c.quiet()
	})
	for form, delta := range map[string]bool{"delta": true, "state of the world": false} {
		t.Run("a proxy that does not read holds up nobody and gets the last state, "+form, func(t *testing.T) {
			run(t, nil, func(x *fixture) {
				big := func(n string) string { return "RDS r=" + n + strings.Repeat("x", 1<<20) }
				x.set(t, big("0"))
				slow, quick := x.connectSlow(delta), x.connect(delta)
				defer slow.cancel()
				defer quick.cancel()
				quick.started(big("0"))
				slow.ask("RDS", "r")
				for _, n := range []string{"1", "2", "3", "4", "5", "6"} {
					x.push(everything, big(n))
					quick.want(big(n))
					quick.ack("RDS")
				}
				close(slow.reads)
				slow.want(big("0"), big("1"), big("6")) // the transport holds one more than was read
				slow.quiet()
			})
		})
	}
	both(t, "a type that cannot be made stays as it is, others go on", base, func(x *fixture, c *client) {
		c.started(base...)
		x.world.fail = "CDS"
		x.push(everything, "CDS a=2", "RDS r=2")
		c.want("RDS r=2")
		c.quiet()
		if !strings.Contains(x.log.String(), "broken on purpose") {
			x.t.Error("the error is not in the log")
		}
	})
	t.Run("delta: only what changed, and removals", func(t *testing.T) {
		run(t, base, func(x *fixture) {
			c := x.connect(true)
			defer c.cancel()
			c.started(base...)
			x.push(everything, "CDS a=1 b=2", "EDS a=x b=x", "RDS", "SDS")
			c.want("CDS b=2", "EDS b=x", "RDS -r", "SDS -s")
		})
	})
	t.Run("state of the world: CDS and LDS whole, the rest what changed", func(t *testing.T) {
		run(t, base, func(x *fixture) {
			c := x.connect(false)
			defer c.cancel()
			c.started(base...)
			x.push(everything, "CDS a=1 b=2", "EDS a=y b=x")
			c.want("CDS a=1 b=2", "EDS a=y b=x") // a changed, b follows its cluster
			c.ack("CDS")
			c.ack("EDS")
			x.push(everything, "EDS a=z b=x")
			c.want("EDS a=z")
		})
	})
}

func TestWarming(t *testing.T) {
	both(t, "unchanged endpoints follow a changed cluster", base, func(x *fixture, c *client) {
		c.started("CDS a=1 b=1", "EDS a=x b=x")
		x.push(ads.Change{Kinds: []string{"DestinationRule"}}, "CDS a=2 b=1")
		if c.delta {
			c.want("CDS a=2", "EDS a=x")
		} else {
			c.want("CDS a=2 b=1", "EDS a=x")
		}
	})
	t.Run("delta: endpoints that are asked for again are sent again", func(t *testing.T) {
		run(t, base, func(x *fixture) {
			c := x.connect(true)
			defer c.cancel()
			c.started("CDS a=1 b=1", "EDS a=x b=x")
			c.ask("EDS", "a")
			c.want("EDS a=x")
		})
	})
	both(t, "EN-057 routes wait until new clusters are acknowledged", base, func(x *fixture, c *client) {
		c.started(base...)
		x.push(everything, "CDS a=1 b=1 c=1", "RDS r=c")
		c.want(map[bool]string{true: "CDS c=1", false: "CDS a=1 b=1 c=1"}[c.delta])
		c.quiet()
		c.ack("CDS")
		c.want("RDS r=c")
	})
	both(t, "routes do not wait for ever", base, func(x *fixture, c *client) {
		c.started(base...)
		x.push(everything, "CDS a=1 b=1 c=1", "RDS r=c")
		c.want(map[bool]string{true: "CDS c=1", false: "CDS a=1 b=1 c=1"}[c.delta])
		c.quiet()
		time.Sleep(time.Second)
		c.want("RDS r=c")
	})
	both(t, "clusters leave after the routes that name them", base, func(x *fixture, c *client) {
		c.started(base...)
		x.push(everything, "CDS a=1", "RDS r=a")
		c.want("RDS r=a")
		c.quiet()
		c.ack("RDS")
		c.want(map[bool]string{true: "CDS -b", false: "CDS a=1"}[c.delta])
		c.ack("CDS")
		c.quiet()
	})
	both(t, "an addition and a removal are two responses", base, func(x *fixture, c *client) {
		c.started(base...)
		x.push(everything, "CDS a=1 c=1", "RDS r=c")
		c.want(map[bool]string{true: "CDS c=1", false: "CDS a=1 c=1 b=1"}[c.delta])
		c.ack("CDS")
		c.want("RDS r=c")
		c.ack("RDS")
		c.want(map[bool]string{true: "CDS -b", false: "CDS a=1 c=1"}[c.delta])
	})
	both(t, "a removal does not wait for ever", base, func(x *fixture, c *client) {
		c.started(base...)
		x.push(everything, "CDS a=1", "RDS r=a")
		c.want("RDS r=a")
		time.Sleep(4 * time.Second)
		c.quiet()
		time.Sleep(time.Second)
		c.want(map[bool]string{true: "CDS -b", false: "CDS a=1"}[c.delta])
	})
	both(t, "a cluster that comes back before it left stays", base, func(x *fixture, c *client) {
		c.started(base...)
		x.push(everything, "CDS a=1", "RDS r=a")
		c.want("RDS r=a")
		x.push(everything, "CDS a=1 b=1", "RDS r=b")
		c.want("RDS r=b")
		c.ack("RDS")
		c.quiet()
	})
	both(t, "clusters stay while the proxy refuses the routes that no longer name them", base, func(x *fixture, c *client) {
		c.started(base...)
		x.push(everything, "CDS a=1", "RDS r=a")
		c.want("RDS r=a")
		c.nack("RDS", "route configuration r: no")
		time.Sleep(time.Minute)
		c.quiet()
		x.push(everything, "RDS r=a2")
		c.want("RDS r=a2")
		c.ack("RDS")
		c.want(map[bool]string{true: "CDS -b", false: "CDS a=1"}[c.delta])
	})
}

func TestNACK(t *testing.T) {
	both(t, "EN-057 a NACK is logged, counted, kept for status and not answered", base, func(x *fixture, c *client) {
		c.started("CDS a=1 b=1", "RDS r=1")
		x.push(everything, "CDS a=bad b=1")
		c.want(map[bool]string{true: "CDS a=bad", false: "CDS a=bad b=1"}[c.delta])
		c.nack("CDS", "Error adding/updating cluster(s) a: no such thing")
		c.quiet()
		st := x.server.Conns()[0]
		if r := refusals(st); len(r) != 1 || r[0].Resource != "a" || !strings.Contains(r[0].Error, "no such thing") || r[0].Generation != 2 {
			x.t.Errorf("refused %+v", r)
		}
		if st.Applied != 1 {
			x.t.Errorf("applied generation %d, want 1", st.Applied)
		}
		if !strings.Contains(x.log.String(), "NACK\tproxy=gw.istio-system-1 node=router~127.0.0.1~gw.istio-system~istio-system.svc.cluster.local type=CDS resource=a error=\"Error adding") {
			x.t.Errorf("log:\n%s", x.log)
		}
		if err := testutil.GatherAndCompare(x.reg, strings.NewReader("# HELP pilot_total_xds_rejects Responses refused by proxies, by type.\n"+
			"# TYPE pilot_total_xds_rejects counter\npilot_total_xds_rejects{type=\"cds\"} 1\n"), "pilot_total_xds_rejects"); err != nil {
			x.t.Error(err)
		}
	})
	both(t, "a refused resource is not sent again unchanged, a changed one is", base, func(x *fixture, c *client) {
		c.started("CDS a=1 b=1")
		x.push(everything, "CDS a=bad b=1")
		c.want(map[bool]string{true: "CDS a=bad", false: "CDS a=bad b=1"}[c.delta])
		c.nack("CDS", "a: no")
		x.push(everything, "CDS a=bad b=2")
		c.want(map[bool]string{true: "CDS b=2", false: "CDS a=1 b=2"}[c.delta])
		c.ack("CDS")
		x.push(everything, "CDS a=2 b=2")
		c.want(map[bool]string{true: "CDS a=2", false: "CDS a=2 b=2"}[c.delta])
		c.ack("CDS")
		synctest.Wait()
		if r := refusals(x.server.Conns()[0]); len(r) != 0 {
			x.t.Errorf("refused %+v, want none", r)
		}
	})
	both(t, "going back to the last good version sends nothing", base, func(x *fixture, c *client) {
		c.started("CDS a=1 b=1")
		x.push(everything, "CDS a=bad b=1")
		c.want(map[bool]string{true: "CDS a=bad", false: "CDS a=bad b=1"}[c.delta])
		c.nack("CDS", "a: no")
		x.push(everything, "CDS a=1 b=1")
		c.quiet()
	})
	both(t, "a refused resource that was never taken is left out", base, func(x *fixture, c *client) {
		c.ask("CDS")
		c.want("CDS a=1 b=1")
		c.nack("CDS", "Error adding/updating cluster(s) b: no")
		x.push(everything, "CDS a=2 b=1")
		c.want("CDS a=1", "CDS a=2") // a was in doubt after the NACK
	})
	t.Run("delta: resources in the company of a refused one go again", func(t *testing.T) {
		run(t, []string{"RDS r1=1 r2=1 r22=1"}, func(x *fixture) {
			c := x.connect(true)
			defer c.cancel()
			c.ask("RDS", "r1", "r2", "r22")
			c.want("RDS r1=1 r2=1 r22=1")
			c.nack("RDS", "route 'r2': bad")
			c.want("RDS r1=1 r22=1")
			c.ack("RDS")
			c.quiet()
		})
	})
	t.Run("delta: what was refused is acknowledged later", func(t *testing.T) {
		run(t, []string{"LDS l=1"}, func(x *fixture) {
			c := x.connect(true)
			defer c.cancel()
			c.started("LDS l=1")
			x.push(everything, "LDS l=1 m=taken")
			c.want("LDS m=taken")
			c.nack("LDS", "m: cannot bind")
			c.quiet()
			if r := refusals(x.server.Conns()[0]); len(r) != 1 {
				x.t.Errorf("refused %+v, want m", r)
			}
			c.ack("LDS") // once more, for the same response
			c.quiet()
			if st := x.server.Conns()[0]; len(refusals(st)) != 0 || st.Applied != 2 {
				x.t.Errorf("applied %d, refused %+v; want 2 and none", st.Applied, refusals(st))
			}
			x.push(everything, "LDS l=1")
			c.want("LDS -m")
		})
	})
	t.Run("delta: an error that names nothing makes them go one by one", func(t *testing.T) {
		run(t, []string{"EDS a=x b=x"}, func(x *fixture) {
			c := x.connect(true)
			defer c.cancel()
			c.ask("EDS", "a", "b")
			c.want("EDS a=x b=x")
			c.nack("EDS", "malformed")
			c.want("EDS a=x")
			c.ack("EDS")
			c.want("EDS b=x")
			c.nack("EDS", "malformed")
			c.quiet()
			if r := refusals(x.server.Conns()[0]); len(r) != 1 || r[0].Resource != "b" {
				x.t.Errorf("refused %+v, want b", r)
			}
		})
	})
	t.Run("a NACK of a response that is not the last", func(t *testing.T) {
		run(t, []string{"CDS a=1"}, func(x *fixture) {
			c := x.connect(true)
			defer c.cancel()
			c.started("CDS a=1")
			x.push(everything, "CDS a=bad")
			c.want("CDS a=bad")
			bad := c.nonce["CDS"]
			x.push(everything, "CDS a=2")
			c.want("CDS a=2")
			c.send(request{typ: "CDS", nonce: bad, nack: "a: no"})
			c.ack("CDS")
			c.quiet()
			if st := x.server.Conns()[0]; len(refusals(st)) != 0 || st.Applied != 3 {
				x.t.Errorf("applied %d, refused %+v; want 3 and none", st.Applied, refusals(st))
			}
		})
	})
}

func TestNonce(t *testing.T) {
	t.Run("state of the world: names with a stale nonce wait for the next answer", func(t *testing.T) {
		run(t, base, func(x *fixture) {
			c := x.connect(false)
			defer c.cancel()
			c.started("EDS a=x")
			old := c.nonce["EDS"]
			x.push(everything, "EDS a=y b=x")
			c.want("EDS a=y")
			c.send(request{typ: "EDS", nonce: old, names: []string{"a", "b"}})
			c.quiet()
			c.ask("EDS", "a", "b")
			c.want("EDS b=x")
			if n := testutil.CollectAndCount(x.reg, "pilot_xds_expired_nonce"); n != 1 {
				x.t.Errorf("%d series of pilot_xds_expired_nonce, want 1", n)
			}
		})
	})
	t.Run("delta: names count whatever the nonce", func(t *testing.T) {
		run(t, base, func(x *fixture) {
			c := x.connect(true)
			defer c.cancel()
			c.started("EDS a=x")
			c.send(request{typ: "EDS", nonce: "never sent", names: []string{"b"}})
			c.want("EDS b=x")
		})
	})
}

func TestReconnect(t *testing.T) {
	t.Run("delta: what the proxy brings is not sent, what is gone leaves", func(t *testing.T) {
		run(t, base, func(x *fixture) {
			c := x.connect(true)
			c.started(base...)
			c.cancel()
			x.set(t, "CDS a=1 c=1", "LDS l=1", "RDS r=2")
			d := x.connect(true)
			defer d.cancel()
			d.send(request{typ: "CDS", initial: c.have["CDS"]})
			d.want("CDS c=1")
			d.ack("CDS")
			d.send(request{typ: "LDS", initial: c.have["LDS"]})
			d.want("LDS")
			d.ack("LDS")
			d.send(request{typ: "RDS", names: []string{"r"}, initial: c.have["RDS"]})
			d.want("RDS r=2")
			d.quiet()
			d.ack("RDS")
			d.want("CDS -b")
		})
	})
	t.Run("delta: an Envoy gets its endpoints again", func(t *testing.T) {
		run(t, base, func(x *fixture) {
			c := x.connect(true)
			c.started("CDS a=1 b=1", "EDS a=x b=x")
			c.cancel()
			d := x.connect(true)
			defer d.cancel()
			d.send(request{typ: "EDS", names: []string{"a", "b"}, initial: c.have["EDS"]})
			d.want("EDS a=x b=x")
		})
	})
	t.Run("state of the world: an unchanged set is not sent", func(t *testing.T) {
		run(t, base, func(x *fixture) {
			c := x.connect(false)
			c.started("CDS a=1 b=1")
			c.cancel()
			d := x.connect(false)
			defer d.cancel()
			d.send(request{typ: "CDS", version: c.vers["CDS"]})
			d.quiet()
			x.push(everything, "CDS a=2 b=1")
			d.want("CDS a=2 b=1")
		})
	})
}

func TestStream(t *testing.T) {
	both(t, "a stream without a node is refused", base, func(x *fixture, c *client) {
		c.first = false
		c.ask("CDS")
		c.wantEnd("must name its node")
	})
	both(t, "too many names end the stream", base, func(x *fixture, c *client) {
		names := make([]string, 200_001)
		for i := range names {
			names[i] = "n" + strings.Repeat("x", i%3) + time.Duration(i).String()
		}
		c.ask("EDS", names...)
		c.wantEnd("ResourceExhausted")
	})
	both(t, "Close ends the stream and refuses the next", base, func(x *fixture, c *client) {
		c.started("CDS a=1 b=1")
		x.server.Close()
		c.wantEnd("shutting down")
		d := x.connect(c.delta)
		defer d.cancel()
		d.ask("CDS")
		d.wantEnd("shutting down")
	})
	both(t, "a proxy that goes is forgotten", base, func(x *fixture, c *client) {
		c.started("CDS a=1 b=1")
		if n := len(x.server.Conns()); n != 1 {
			x.t.Fatalf("%d streams, want 1", n)
		}
		if n := testutil.CollectAndCount(x.reg, "pilot_xds"); n != 1 {
			x.t.Errorf("%d series of versions, want 1", n)
		}
		c.cancel()
		synctest.Wait()
		if n := len(x.server.Conns()); n != 0 {
			x.t.Errorf("%d streams, want none", n)
		}
		if n := testutil.CollectAndCount(x.reg, "pilot_xds"); n != 0 {
			x.t.Errorf("%d series of versions that no stream has, want none", n)
		}
	})
}
