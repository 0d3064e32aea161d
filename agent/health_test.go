package agent

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/lateen-mesh/lateen/proxy/xds/xdstest"
	"github.com/lateen-mesh/lateen/wellknown"
)

// TestHealth: where no kubelet probes the application the agent does, and tells.
func TestHealth(t *testing.T) {
	proxies(t, func(t *testing.T, proxy string) {
		w := newWorld(t)
		file := filepath.Join(w.dir, "well")
		w.env = []string{"ISTIO_META_AUTO_REGISTER_GROUP=web"}
		w.config = fmt.Sprintf(`, "readinessProbe": {"periodSeconds": 1, "failureThreshold": 2, "exec": {"command": ["test", "-e", %q]}}`, file)
		w.start(proxy)
		w.ready()
		t.Run("MC-078 SE-020 SE-023 an application that is not well", func(t *testing.T) {
			w.control.Await(t, wellknown.HealthType, 0, func(r xdstest.Request) bool { return r.Error != nil })
		})
		t.Run("MC-078 SE-020 SE-023 it gets well", func(t *testing.T) {
			if err := os.WriteFile(file, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			w.control.Await(t, wellknown.HealthType, 1, func(r xdstest.Request) bool { return r.Error == nil })
		})
	})
}
