package ads_test

import (
	"testing"
	"time"

	"github.com/lateen-mesh/lateen/control/ads"
)

var hosted = []string{"CDS a=1 b=1", "LDS l=1", "RDS r=1", "VHDS r/a=1 r/b=1 other/c=1"}

// TestNested: a name stands for all resources below it.
func TestNested(t *testing.T) {
	routes := ads.Change{Kinds: []string{"VirtualService"}}
	apart := func(t *testing.T, name string, f func(x *fixture, c *client)) {
		t.Run(name, func(t *testing.T) {
			run(t, hosted, func(x *fixture) {
				c := x.connect(true)
				c.apart = true
				defer func() { c.cancel() }()
				f(x, c)
			})
		})
	}
	apart(t, "what is below it is sent, and then what differs", func(x *fixture, c *client) {
		c.ask("VHDS", "r")
		c.want("VHDS r/a=1 r/b=1")
		c.ack("VHDS")
		x.push(routes, "VHDS r/a=1 r/b=2 r/d=1 other/c=2")
		c.want("VHDS r/b=2 r/d=1")
		c.ack("VHDS")
		x.push(routes, "VHDS r/b=2 r/d=1")
		c.want("VHDS -r/a")
		c.ack("VHDS")
		c.quiet()
	})
	apart(t, "a name below which there is nothing is answered", func(x *fixture, c *client) {
		c.ask("VHDS", "none")
		c.want("VHDS -none")
		c.ack("VHDS")
		x.push(routes, "VHDS none/a=1")
		c.want("VHDS none/a=1")
		c.ack("VHDS")
		x.push(routes, "VHDS r/a=1")
		c.want("VHDS -none/a")
	})
	apart(t, "one can be asked for beside, and is answered", func(x *fixture, c *client) {
		c.ask("VHDS", "r")
		c.want("VHDS r/a=1 r/b=1")
		c.ack("VHDS")
		c.ask("VHDS", "r/b", "r/none")
		c.want("VHDS r/b=1 -r/none")
		c.ack("VHDS")
		c.send(request{typ: "VHDS", unsubscribe: []string{"r/b"}})
		c.quiet()
	})
	apart(t, "who asks again has forgotten what there was", func(x *fixture, c *client) {
		c.ask("VHDS", "r", "other")
		c.want("VHDS other/c=1 r/a=1 r/b=1")
		c.ack("VHDS")
		c.ask("VHDS", "r")
		c.want("VHDS r/a=1 r/b=1")
		c.ack("VHDS")
		c.send(request{typ: "VHDS", unsubscribe: []string{"r"}})
		x.push(routes, "VHDS r/a=2 r/b=1 other/c=2")
		c.want("VHDS other/c=2")
		c.ack("VHDS")
		c.ask("VHDS", "r")
		c.want("VHDS r/a=2 r/b=1")
	})
	apart(t, "who comes back gets what differs", func(x *fixture, c *client) {
		c.ask("VHDS", "r", "other")
		c.want("VHDS other/c=1 r/a=1 r/b=1")
		c.ack("VHDS")
		c.cancel()
		x.set(x.t, "VHDS r/a=1 r/b=2 other/c=1")
		again := x.connect(true)
		defer again.cancel()
		again.apart = true
		again.send(request{typ: "VHDS", names: []string{"other", "r"}, initial: c.have["VHDS"]})
		again.want("VHDS r/b=2")
		again.ack("VHDS")
		again.quiet()
	})
	apart(t, "one that is refused is not sent again, and the others are taken", func(x *fixture, c *client) {
		c.ask("VHDS", "r")
		c.want("VHDS r/a=1 r/b=1")
		c.ack("VHDS")
		x.push(routes, "VHDS r/a=2 r/b=2")
		c.want("VHDS r/a=2 r/b=2")
		c.nack("VHDS", "r/a: no")
		c.want("VHDS r/b=2") // it is not known whether it was taken
		c.ack("VHDS")
		if f := refusals(x.server.Conns()[0]); len(f) != 1 || f[0].Resource != "r/a" {
			x.t.Errorf("refused %v", f)
		}
		x.push(routes, "VHDS r/a=3 r/b=2")
		c.want("VHDS r/a=3")
		c.ack("VHDS")
		if f := refusals(x.server.Conns()[0]); len(f) > 0 {
			x.t.Errorf("refused %v", f)
		}
	})
	apart(t, "new clusters come before virtual hosts, and old ones go after them", func(x *fixture, c *client) {
		for _, typ := range []string{"CDS", "LDS"} {
			c.ask(typ)
		}
		c.ask("RDS", "r")
		c.want("CDS a=1 b=1", "LDS l=1", "RDS r=1")
		for _, typ := range []string{"CDS", "LDS", "RDS"} {
			c.ack(typ)
		}
		c.ask("VHDS", "r")
		c.want("VHDS r/a=1 r/b=1")
		c.ack("VHDS")
		x.push(everything, "CDS b=1 n=1", "VHDS r/b=1 r/n=1")
		c.want("CDS n=1")
		c.quiet() // until the clusters are taken
		c.ack("CDS")
		c.want("VHDS r/n=1 -r/a")
		c.quiet() // until the virtual hosts are taken
		time.Sleep(time.Second)
		c.quiet()
		c.ack("VHDS")
		c.want("CDS -a")
	})
}
