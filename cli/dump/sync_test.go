package dump_test

import (
	"bytes"
	"strings"
	"testing"

	"github.com/lateen-mesh/lateen/cli/dump"
)

// syncz is what two control planes say: of ours there are errors, of Istio's not.
var syncz = map[string]string{
	"istiod-b": `[
 {"proxy": "web.shop", "cluster_id": "Kubernetes", "istio_version": "1.31.0", "proxy_type": "sidecar",
  "cluster_sent": "5", "cluster_acked": "5", "endpoint_sent": "6", "endpoint_acked": "4",
  "listener_sent": "7", "listener_acked": "3", "listener_error": "0.0.0.0_80: no such filter", "route_sent": "", "route_acked": ""}]`,
	"istiod-a": `[
 {"proxy": "web.shop", "cluster_id": "east", "istio_version": "1.30.1", "cluster_sent": "a", "cluster_acked": "a", "listener_sent": "b", "listener_acked": "b",
  "endpoint_sent": "c", "endpoint_acked": "c", "route_sent": "d", "route_acked": "d", "extensionconfig_sent": "e", "extensionconfig_acked": "e", "debug_sent": 3},
 {"proxy": "gw.istio-system"}]`,
}

func synced(t *testing.T) []dump.SyncedProxy {
	t.Helper()
	var all []dump.SyncedProxy
	for plane, text := range syncz {
		list, err := dump.ParseSync(plane, []byte(text))
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, list...)
	}
	return all
}

// TestSync prints the table of the current original, and with states that of earlier ones,
// as the row of the feature surface has them.
func TestSync(t *testing.T) {
	for _, c := range []struct {
		name   string
		states bool
		want   string
	}{
		{"CL-024 types", false, `
NAME                CLUSTER        ISTIOD       VERSION     SUBSCRIBED TYPES
gw.istio-system                    istiod-a                 0 ()
web.shop            Kubernetes     istiod-b     1.31.0      4 (CDS,LDS,EDS,RDS)
web.shop            east           istiod-a     1.30.1      5 (CDS,LDS,EDS,RDS,ECDS)
`},
		{"CL-024 states", true, `
NAME                CLUSTER        CDS         LDS         EDS         RDS          ECDS        ISTIOD       VERSION
gw.istio-system                    IGNORED     IGNORED     IGNORED     IGNORED      IGNORED     istiod-a
web.shop            Kubernetes     SYNCED      ERROR       STALE       NOT SENT     IGNORED     istiod-b     1.31.0
web.shop            east           SYNCED      SYNCED      SYNCED      SYNCED       SYNCED      istiod-a     1.30.1
`},
	} {
		t.Run(c.name, func(t *testing.T) {
			var out bytes.Buffer
			if err := dump.WriteSync(&out, "table", c.states, synced(t)); err != nil {
				t.Fatal(err)
			}
			same(t, "short", out.Bytes(), []byte(strings.TrimPrefix(c.want, "\n")))
		})
	}
	t.Run("CL-024 json", func(t *testing.T) {
		var out bytes.Buffer
		if err := dump.WriteSync(&out, "yaml", false, synced(t)[:0]); err != nil || out.String() != "[]\n" {
			t.Errorf("of none: %q, %v", &out, err)
		}
		list, err := dump.ParseSync("istiod-b", []byte(syncz["istiod-b"]))
		if err != nil {
			t.Fatal(err)
		}
		out.Reset()
		if err := dump.WriteSync(&out, "json", false, list); err != nil {
			t.Fatal(err)
		}
		same(t, "json", out.Bytes(), []byte(`[{"node": {"id": "web.shop", "metadata": {"CLUSTER_ID": "Kubernetes", "ISTIOD": "istiod-b", "ISTIO_VERSION": "1.31.0"}},
			"genericXdsConfigs": [
			{"typeUrl": "type.googleapis.com/envoy.config.cluster.v3.Cluster", "configStatus": "SYNCED"},
			{"typeUrl": "type.googleapis.com/envoy.config.listener.v3.Listener", "configStatus": "ERROR", "errorState": {"details": "0.0.0.0_80: no such filter"}},
			{"typeUrl": "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment", "configStatus": "STALE"},
			{"typeUrl": "type.googleapis.com/envoy.config.route.v3.RouteConfiguration", "configStatus": "NOT_SENT"}]}]`))
	})
}

func FuzzParseSync(f *testing.F) {
	for _, text := range syncz {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		list, err := dump.ParseSync("istiod", text)
		if err != nil {
			return
		}
		for _, form := range []string{"table", "json", "yaml"} {
			_ = dump.WriteSync(new(bytes.Buffer), form, true, list) // text that is no UTF-8 has no JSON
		}
	})
}
