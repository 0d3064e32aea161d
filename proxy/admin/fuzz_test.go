package admin

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	adminpb "github.com/envoyproxy/go-control-plane/envoy/admin/v3"
	"google.golang.org/protobuf/proto"

	"github.com/lateen-mesh/lateen/logging"
	"github.com/lateen-mesh/lateen/proxy/stats"
)

// FuzzQuery: whatever a page is asked for, it answers: with what it promises, or with a refusal that says why.
func FuzzQuery(f *testing.F) {
	for _, path := range []string{"/stats?filter=a(&format=json", "/stats?format=json&histogram_buckets=detailed", "/stats/prometheus?histogram_buckets=summary&text_readouts&usedonly",
		"/config_dump?resource=static_clusters&mask=cluster.name,,a..b&name_regex=[", "/config_dump?mask=*&include_eds", "/clusters?format=json&filter=x", "/logging?paths=a:b,:,c", "/stats?type=Gauges&%zz"} {
		f.Add(path)
	}
	store := stats.NewStore()
	store.Scope("cluster.a.").Counter("x").Inc()
	store.Scope("cluster.a.").Histogram("h").Record(3)
	log, err := logging.New(logging.Options{Output: &strings.Builder{}})
	if err != nil {
		f.Fatal(err)
	}
	s := New(View{
		Clusters: exampleClusters, Stats: store, Log: log,
		Dump: func(bool) []proto.Message { return []proto.Message{&adminpb.ClustersConfigDump{VersionInfo: "1"}} },
	})
	asked := map[string]bool{"/stats": true, "/stats/prometheus": true, "/config_dump": true, "/clusters": true, "/logging": true}
	f.Fuzz(func(t *testing.T, path string) {
		u, err := url.ParseRequestURI(path)
		if err != nil || !asked[u.Path] {
			return
		}
		r := httptest.NewRecorder()
		s.ServeHTTP(r, &http.Request{Method: http.MethodPost, URL: u, Header: http.Header{}})
		switch body := r.Body.Bytes(); {
		case r.Code != 200 && r.Code != 400 && r.Code != 404:
			t.Errorf("%s: status %d", path, r.Code)
		case r.Code != 200 && len(body) == 0:
			t.Errorf("%s: %d without a reason", path, r.Code)
		case r.Code == 200 && r.Header().Get("content-type") == "application/json" && !json.Valid(body):
			t.Errorf("%s: %s", path, body)
		}
	})
}
