package ads_test

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/lateen-mesh/lateen/control/ads"
)

// about is a change of resources about subjects alone.
func about(subjects ...string) ads.Change { return ads.Change{Subjects: subjects} }

var parted = []string{"CDS a=1 b=1", "EDS a=1 a.v1=1 b=1", "LDS l=1", "RDS r=1"}

// TestSubjects: what a change is about is looked at, and nothing else. The worlds differ in
// more than the changes say, to show where nobody looks.
func TestSubjects(t *testing.T) {
	both(t, "the resources about a subject are compared alone", parted, func(x *fixture, c *client) {
		c.started(parted...)
		x.push(about("a"), "CDS a=2 b=2", "EDS a=2 a.v1=2 b=2", "LDS l=2", "RDS r=2")
		c.want("EDS a=2 a.v1=2")
		c.ack("EDS")
		c.quiet()
		if got := x.server.Conns()[0].Applied; got != 2 {
			x.t.Errorf("applied generation %d, want 2", got)
		}
	})
	both(t, "what did not change about a subject is not sent", parted, func(x *fixture, c *client) {
		c.started(parted...)
		x.push(about("a"), "EDS a=1 a.v1=2 b=1")
		c.want("EDS a.v1=2")
		c.ack("EDS")
		x.push(about("b", "none"))
		c.quiet()
		if got := x.server.Conns()[0].Applied; got != 3 {
			x.t.Errorf("applied generation %d, want 3", got)
		}
	})
	t.Run("delta: one that is gone is removed, and comes again", func(t *testing.T) {
		run(t, parted, func(x *fixture) {
			c := x.connect(true)
			defer c.cancel()
			c.started(parted...)
			x.push(about("a"), "EDS a=1")
			c.want("EDS -a.v1")
			c.ack("EDS")
			x.push(about("a"), "EDS a=1 a.v1=3")
			c.want("EDS a.v1=3")
		})
	})
	both(t, "a kind that changes with a subject has everything compared", parted, func(x *fixture, c *client) {
		c.started(parted...)
		x.push(ads.Change{Kinds: []string{"EndpointSlice"}, Subjects: []string{"a"}}, "EDS a=2 a.v1=1 b=2")
		c.want("EDS a=2 b=2")
	})
	both(t, "a proxy of which something else is known has everything compared", parted, func(x *fixture, c *client) {
		c.started(parted...)
		x.mu.Lock()
		x.key = "moved"
		x.mu.Unlock()
		x.push(about("none"), "CDS a=2 b=1", "EDS a=1 a.v1=1 b=2", "LDS l=1", "RDS r=2")
		c.want("CDS a=2"+map[bool]string{false: " b=1"}[c.delta], "EDS a=1 b=2", "RDS r=2")
	})
	both(t, "a name that is asked for is answered alone", parted, func(x *fixture, c *client) {
		c.started("EDS a=1")
		x.set(t, "EDS a=2 b=2")
		if c.delta {
			c.ask("EDS", "b")
		} else {
			c.ask("EDS", "a", "b")
		}
		c.want("EDS b=2")
		c.ack("EDS")
		x.push(about("a"))
		c.want("EDS a=2")
	})
	both(t, "endpoints of a changed cluster follow it, with those that changed", parted, func(x *fixture, c *client) {
		c.started(parted...)
		x.push(ads.Change{Kinds: []string{"DestinationRule"}, Subjects: []string{"a"}}, "CDS a=1 b=2", "EDS a=2 a.v1=1 b=1")
		c.want("CDS "+map[bool]string{false: "a=1 "}[c.delta]+"b=2", "EDS a=2 b=1")
	})
	both(t, "what could not be made is made with the next change, whatever that is about", parted, func(x *fixture, c *client) {
		c.started(parted...)
		x.mu.Lock()
		x.fail = "EDS"
		x.mu.Unlock()
		x.push(about("a"), "EDS a=2 a.v1=1 b=1")
		c.quiet()
		x.mu.Lock()
		x.fail = ""
		x.mu.Unlock()
		x.push(about("none"))
		c.want("EDS a=2")
	})
}

// TestSubjectsOfASlowProxy: what changes while a proxy does not read is merged, and beyond a
// bound everything is compared once.
func TestSubjectsOfASlowProxy(t *testing.T) {
	const many = 1500 // more than are remembered
	big := func(n int) string { return fmt.Sprintf("RDS r=%d%s", n, strings.Repeat("x", 1<<20)) }
	for name, each := range map[string]func(x *fixture, i int) ads.Change{
		"a few": func(_ *fixture, i int) ads.Change { return about(fmt.Sprintf("s%d", i%2)) },
		"many":  func(_ *fixture, i int) ads.Change { return about(fmt.Sprintf("s%d", i)) },
	} {
		t.Run(name, func(t *testing.T) {
			run(t, []string{big(0), "EDS s0=1 s1=1 unsaid=1"}, func(x *fixture) {
				c := x.connectSlow(true)
				defer c.cancel()
				c.ask("EDS", "s0", "s1", "unsaid")
				c.ask("RDS", "r")
				for n := range 3 { // until the connection takes no more
					x.push(ads.Change{Kinds: []string{"VirtualService"}}, big(n+1))
					synctest.Wait()
				}
				for i := range many {
					x.push(each(x, i), "EDS s0=2 s1=2 unsaid=2")
				}
				close(c.reads)
				c.want("EDS s0=1 s1=1 unsaid=1", big(0), big(1))
				want := "EDS s0=2 s1=2"
				if name == "many" {
					want += " unsaid=2"
				}
				c.want(want, big(3))
				c.ack("EDS")
				c.ack("RDS")
				c.quiet()
			})
		})
	}
}
