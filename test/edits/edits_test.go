// Package edits holds a mesh under load while its configuration is edited at random: no
// request gets an answer that neither the configuration before an edit orders nor the one
// after it, whatever the edit takes away and in whatever order it is written.
package edits

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"testing"

	"github.com/lateen-mesh/lateen/test/build"
	"github.com/lateen-mesh/lateen/test/fixture"
)

var (
	edits = flag.Int("edits", 60, "how many edits TestEdits makes; 1000 takes minutes")
	rate  = flag.Int("rate", 300, "requests a second")
	seed  = flag.Uint64("seed", 0, "of the edits, 0 for one by chance")
	envoy = flag.Bool("envoy", false, "also with the stock Envoy that make peers installs")
)

// between is how many requests are made after an edit is in force.
const between = 25

func TestMain(m *testing.M) {
	flag.Parse()
	code := m.Run()
	build.Remove()
	os.Exit(code)
}

func TestEdits(t *testing.T) {
	if testing.Short() {
		*edits = min(*edits, 15)
	}
	peers := []fixture.Peer{{Name: "lateen", Argv: []string{build.Command(t, "lateen-proxy")}}}
	if *envoy {
		path := fixture.EnvoyPath()
		if path == "" {
			t.Fatal("the stock Envoy is not installed: make peers")
		}
		peers = append(peers, fixture.Peer{Name: "envoy", Argv: []string{path}})
	}
	for _, peer := range peers {
		t.Run("WI-030 no request is lost to an edit: "+peer.Name, func(t *testing.T) { run(t, peer) })
	}
}

func run(t *testing.T, peer fixture.Peer) {
	number := *seed
	if number == 0 {
		number = rand.Uint64()
	}
	t.Logf("-args -seed %d", number)
	r := rand.New(rand.NewPCG(number, 0))
	c := first(r)
	m := start(t, peer, c)
	l := m.load(t, c, *rate, number)
	counts := map[string]int{}
	for range *edits {
		c = c.clone()
		var names []string
		for n := 1 + r.IntN(3); len(names) < n; {
			if one := pick(r, changes); one.make(r, c) {
				names = append(names, one.name)
				counts[one.name]++
			}
		}
		version := l.written(c)
		t.Logf("configuration %d: %s", version, strings.Join(names, "; "))
		if changed := m.write(c); changed && r.IntN(3) == 0 {
			m.built() // the next edit comes while this one is on its way
			continue
		}
		m.delivered()
		l.force(version)
		l.more(t, between)
	}
	m.delivered()
	l.report(t)
	t.Logf("what was edited: %v", fmt.Sprint(counts))
}

// first is what everything begins with.
func first(r *rand.Rand) *config {
	c := &config{}
	for range 4 {
		c.newService(r)
	}
	for range 3 {
		c.newSite(r)
	}
	return c
}

// Each edit leaves a configuration in which somebody is there to answer all that is asked for.
func TestEditsAreValid(t *testing.T) {
	for number := range uint64(20) {
		r := rand.New(rand.NewPCG(number, 0))
		c := first(r)
		for range 500 {
			one := pick(r, changes)
			one.make(r, c)
			for _, to := range c.targets() {
				if may, there := c.answers(to, c); !there || len(may) == 0 {
					t.Fatalf("seed %d, after %q: nobody answers %s", number, one.name, to)
				}
			}
		}
	}
}
