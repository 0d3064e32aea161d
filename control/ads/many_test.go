package ads_test

import (
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
)

// TestManyAtOnce: proxies that come at the same moment are all served, none is told to come
// again later.
func TestManyAtOnce(t *testing.T) {
	const proxies = 200
	for form, delta := range map[string]bool{"delta": true, "state of the world": false} {
		t.Run(form, func(t *testing.T) {
			run(t, base, func(x *fixture) {
				all := make([]*client, proxies)
				for i := range all {
					all[i] = x.connect(delta)
					defer all[i].cancel()
				}
				for _, c := range all {
					for _, r := range []request{{typ: "CDS"}, {typ: "EDS", names: []string{"a", "b"}}, {typ: "LDS"}} {
						if err := c.write(r); err != nil {
							t.Fatal(err)
						}
					}
				}
				synctest.Wait()
				for _, c := range all {
					got := map[string]bool{}
					for range 3 {
						select {
						case r := <-c.in:
							if r.err != nil {
								t.Fatal(r.err)
							}
							got[r.text] = true
						default:
							t.Fatalf("only %v", got)
						}
					}
					if !got["CDS a=1 b=1"] || !got["EDS a=x b=x"] || !got["LDS l=1"] {
						t.Fatalf("got %v", got)
					}
				}
			})
		})
	}
}

// TestProxiesThatNeverRead: what waits for them is there once, not for each of them, and what
// changes meanwhile is merged.
func TestProxiesThatNeverRead(t *testing.T) {
	const proxies, size = 60, 1 << 20 // a resource has its text twice
	run(t, nil, func(x *fixture) {
		big := func(version string) string { return "RDS r=" + version + strings.Repeat("x", size) }
		x.set(t, big("0"))
		quick := x.connect(true)
		defer quick.cancel()
		quick.started(big("0"))
		before := live()
		var all []*client
		for range proxies {
			c := x.connectSlow(true)
			c.ask("RDS", "r")
			all = append(all, c)
		}
		for _, version := range []string{"1", "2", "3"} {
			x.push(everything, big(version))
			quick.want(big(version))
			quick.ack("RDS")
		}
		if grown := live() - before; grown > proxies*size/2 {
			t.Errorf("%d proxies that do not read %d MiB hold %d MiB", proxies, 2*size>>20, grown>>20)
		}
		close(all[0].reads)
		all[0].want(big("0"), big("1"), big("3"))
		all[0].quiet()
		all[0].cancel()
		for _, c := range all[1:] {
			c.cancel()
			close(c.reads)
		}
	})
}

// live is how many bytes are in use.
func live() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}
