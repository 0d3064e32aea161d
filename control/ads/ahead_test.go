package ads_test

import (
	"testing"
	"time"
)

// program runs a case with a gRPC program that calls by the table r to the cluster a.
func program(t *testing.T, name string, f func(*fixture, *client)) {
	t.Helper()
	t.Run(name, func(t *testing.T) {
		run(t, []string{"CDS a=1 c=1", "EDS a=x c=x", "LDS l=1", "RDS r=a"}, func(x *fixture) {
			c := x.connect(false)
			defer c.cancel()
			c.program = true
			for _, s := range []struct{ typ, name, want string }{
				{"LDS", "l", "LDS l=1"}, {"RDS", "r", "RDS r=a"}, {"CDS", "a", "CDS a=1"}, {"EDS", "a", "EDS a=x"},
			} {
				c.ask(s.typ, s.name)
				c.want(s.want)
				c.ack(s.typ)
			}
			c.quiet()
			f(x, c)
		})
	})
}

func TestAhead(t *testing.T) {
	program(t, "new routes wait until their clusters are taken", func(x *fixture, c *client) {
		x.push(everything, "RDS r=c")
		c.want("RDS r=a+c")
		c.ack("RDS")
		if applied := x.server.Conns()[0].Applied; applied != 1 {
			t.Errorf("generation %d counts as applied, want 1", applied)
		}
		c.ask("CDS", "a", "c")
		c.want("CDS a=1 c=1")
		c.ack("CDS")
		c.quiet()
		c.ask("EDS", "a", "c")
		c.want("EDS c=x")
		c.quiet()
		c.ack("EDS")
		c.want("RDS r=c")
		c.ack("RDS")
		c.quiet()
		if applied := x.server.Conns()[0].Applied; applied != 2 {
			t.Errorf("generation %d is applied, want 2", applied)
		}
	})
	program(t, "they do not wait for ever", func(x *fixture, c *client) {
		x.push(everything, "RDS r=c")
		c.want("RDS r=a+c")
		c.ack("RDS")
		c.quiet()
		time.Sleep(time.Second)
		c.want("RDS r=c")
	})
	program(t, "clusters that leave stay until the program drops them", func(x *fixture, c *client) {
		x.push(everything, "CDS c=1", "RDS r=c")
		c.want("RDS r=a+c")
		c.ack("RDS")
		c.ask("CDS", "a", "c")
		c.want("CDS c=1 a=1")
		c.ack("CDS")
		c.ask("EDS", "a", "c")
		c.want("EDS c=x")
		c.ack("EDS")
		c.want("RDS r=c")
		c.ack("RDS")
		c.quiet()
		c.ask("CDS", "c")
		time.Sleep(time.Minute)
		c.quiet()
	})
	program(t, "clusters that leave do not stay for ever", func(x *fixture, c *client) {
		x.push(everything, "CDS c=1")
		c.quiet()
		time.Sleep(time.Minute)
		c.want("CDS")
	})
	program(t, "newer routes take the place of those that wait", func(x *fixture, c *client) {
		x.push(everything, "RDS r=c")
		c.want("RDS r=a+c")
		c.ack("RDS")
		x.push(everything, "RDS r=a")
		c.want("RDS r=a")
		c.ack("RDS")
		time.Sleep(time.Second)
		c.quiet()
	})
	program(t, "routes to clusters that are there do not wait", func(x *fixture, c *client) {
		x.push(everything, "CDS a=1", "RDS r=a s=a")
		c.ask("RDS", "r", "s")
		c.want("RDS s=a")
	})
}
