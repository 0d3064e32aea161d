package xds_test

import (
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/lateen-mesh/lateen/proxy/xds"
	"github.com/lateen-mesh/lateen/proxy/xds/xdstest"
	"github.com/lateen-mesh/lateen/wellknown"
)

// TestTimeToLive: what has outlived its time goes, by name and of all; what came again
// without a time stays.
func TestTimeToLive(t *testing.T) {
	srv := xdstest.New(t)
	srv.SetAll(wellknown.ClusterType, map[string]proto.Message{"a": cluster("a", "1"), "b": cluster("b", "1")})
	srv.SetFor("c", cluster("c", "1"), 50*time.Millisecond)
	srv.SetFor("r", routes("r", "v"), 50*time.Millisecond)
	c, s, named := run(t, xds.Options{Dial: srv.Dial, Delta: true}), newSeen(), newSeen()
	watchAll(c, s)
	xds.Subscribe(c, routeNames, "r", func(v string, present bool) { named.add("%s %v", v, present) })
	s.next(t, "updated [a=1 b=1 c=1] removed []", "updated [] removed [c]")
	named.next(t, "v true", " false")
	srv.SetFor("b", cluster("b", "2"), time.Hour)
	s.next(t, "updated [b=2] removed []")
	srv.Set("b", cluster("b", "3"))
	s.next(t, "updated [b=3] removed []")
}

// TestTimeToLiveInTheWorld: in the state of the world, too, what has outlived its time goes,
// and a heartbeat keeps it.
func TestTimeToLiveInTheWorld(t *testing.T) {
	srv := xdstest.New(t)
	srv.SetAll(wellknown.ClusterType, map[string]proto.Message{"a": cluster("a", "1")})
	srv.SetFor("c", cluster("c", "1"), 50*time.Millisecond)
	srv.SetFor("r", routes("r", "v"), 50*time.Millisecond)
	c, s, named := run(t, xds.Options{Dial: srv.Dial}), newSeen(), newSeen()
	watchAll(c, s)
	xds.Subscribe(c, routeNames, "r", func(v string, present bool) { named.add("%s %v", v, present) })
	s.next(t, "updated [a=1 c=1] removed []", "updated [] removed [c]")
	named.next(t, "v true", " false")
	srv.SetFor("c", cluster("c", "2"), time.Hour)
	s.next(t, "updated [c=2] removed []")
	srv.Beat(wellknown.ClusterType, "c", 50*time.Millisecond) // its time is shorter now
	s.next(t, "updated [] removed []", "updated [] removed [c]")
	srv.SetFor("c", cluster("c", "3"), time.Hour)
	s.next(t, "updated [c=3] removed []")
	srv.Remove(wellknown.ClusterType, "a")
	s.next(t, "updated [] removed [a]")
	srv.Beat(wellknown.ClusterType, "c", 50*time.Millisecond) // nothing else is listed
	s.next(t, "updated [] removed [c]")
}
