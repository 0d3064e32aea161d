package compile

import (
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"

	"golang.org/x/tools/txtar"

	"github.com/lateen-mesh/lateen/control/config"
	"github.com/lateen-mesh/lateen/control/ir"
	"github.com/lateen-mesh/lateen/control/mesh"
)

// TestProxiesShareASnapshot makes everything for several proxies at once from each
// configuration under testdata: what is made is the same each time, and with the race
// detector, nothing of the snapshot is written.
func TestProxiesShareASnapshot(t *testing.T) {
	eachConfiguration(t, func(t *testing.T, s *mesh.Snapshot, p *mesh.Proxy) {
		var made [4]product
		var all sync.WaitGroup
		for i := range made {
			all.Go(func() { made[i] = makeAll(s, p) })
		}
		all.Wait()
		for _, m := range made[1:] {
			if !reflect.DeepEqual(m, made[0]) {
				t.Errorf("%s: not the same each time", p.ID)
			}
		}
	})
}

// eachConfiguration calls f with each configuration under testdata, for a gateway and for a
// sidecar.
func eachConfiguration(t *testing.T, f func(*testing.T, *mesh.Snapshot, *mesh.Proxy)) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join("testdata", "*", "*.txtar"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no configurations: %v", err)
	}
	for _, file := range files {
		archive, err := txtar.ParseFile(file)
		if err != nil {
			t.Fatal(err)
		}
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			s := snapshotOf(archive)
			for _, proxy := range []string{"router istio-system 10.9.9.9 istio=ingressgateway", "sidecar default 10.8.8.8 app=a"} {
				f(t, s, parseProxy(t, proxy))
			}
		})
	}
}

func snapshotOf(archive *txtar.Archive) *mesh.Snapshot {
	var objects []*config.Config
	mc := config.DefaultMeshConfig()
	for _, f := range archive.Files {
		switch f.Name {
		case "config.yaml":
			objects, _ = config.DecodeYAML(f.Name, f.Data)
		case "mesh.yaml":
			mc, _ = config.DecodeMeshConfig(f.Name, f.Data)
		}
	}
	return mesh.Build(config.NewSet(1, objects), mesh.Options{MeshConfig: mc})
}

// A product is all that one proxy is given.
type product struct {
	clusters    []ir.Cluster
	assignments []*ir.Assignment
	listeners   []ir.Listener
	tables      []*ir.RouteConfiguration
	rules       ir.RouteConfiguration
}

func makeAll(s *mesh.Snapshot, p *mesh.Proxy) product { return makeFor(s, s.Scope(p), p) }

func makeFor(s *mesh.Snapshot, scope *mesh.Scope, p *mesh.Proxy) product {
	out := product{clusters: Clusters(s, scope, p), listeners: Listeners(s, scope, p), rules: Rules(s)}
	for _, c := range out.clusters {
		out.assignments = append(out.assignments, Endpoints(s, scope, p, c.Name))
	}
	out.tables = Routes(s, scope, p, routeNames(out.listeners)...)
	return out
}
