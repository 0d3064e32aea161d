package route_test

import (
	"testing"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"

	"github.com/lateen-mesh/lateen/proxy/http"
	"github.com/lateen-mesh/lateen/proxy/route"
	"github.com/lateen-mesh/lateen/proxy/streaminfo"
)

// FuzzCompile: every RouteConfiguration is refused, or decides about every request, and what
// it does to it comes to an end.
func FuzzCompile(f *testing.F) {
	for _, text := range []string{
		`{"virtualHosts":[{"name":"v","domains":["*"],"routes":[{"match":{"prefix":"/"},"route":{"cluster":"c","prefixRewrite":"/x","hashPolicy":[{"header":{"headerName":"a"}},{"cookie":{"name":"c","ttl":"1s"}}]}}]}]}`,
		`{"virtualHosts":[{"name":"v","domains":["a.*","*.b"],"requireTls":"ALL","routes":[{"match":{"safeRegex":{"regex":"/a+"}},"redirect":{"regexRewrite":{"pattern":{"regex":"a"},"substitution":"b"}}}]}]}`,
		`{"virtualHosts":[{"name":"v","domains":["*"],"routes":[{"match":{"prefix":"/","cookies":[{"name":"a","stringMatch":{"exact":"b"}}]},"route":{"weightedClusters":{"headerName":"a","clusters":[{"name":"b","weight":3}]},"hostRewrite":"%REQ(a)%","pathRewrite":"/%REQ(a)%"}}],"requestHeadersToAdd":[{"header":{"key":"x","value":"%PROTOCOL%"}}]}]}`,
	} {
		var rc routev3.RouteConfiguration
		if err := protojson.Unmarshal([]byte(text), &rc); err != nil {
			f.Fatal(err)
		}
		raw, err := proto.Marshal(&rc)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw, "a.b", "/a?b=c", "a=b")
	}
	f.Fuzz(func(t *testing.T, raw []byte, host, path, header string) {
		var rc routev3.RouteConfiguration
		if proto.Unmarshal(raw, &rc) != nil {
			return
		}
		table, err := route.Compile(&rc, route.CompileEnv{})
		if err != nil {
			return
		}
		s := &http.Stream{}
		s.Request = http.Request{Method: []byte("GET"), Authority: []byte(host), Path: []byte("/" + path), Body: http.NoBody}
		s.Request.Headers.Add([]byte("a"), []byte(header))
		s.Request.Headers.Add([]byte("cookie"), []byte(header))
		s.Info = streaminfo.Info{}
		facts := route.Facts{Request: &s.Request, Info: &s.Info}
		target := route.By(table, &facts, &route.Recorder{})
		target.EditRequest(s, target.Weighted)
		switch {
		case target.Route == nil:
		case target.Route.Forward != nil:
			target.Life(s)
			target.Host(s)
			target.Route.Forward.Hash(&s.Request, &s.Info)
			target.Route.AppendPath(nil, s)
		case target.Route.Redirect != nil:
			target.Route.AppendLocation(nil, s, "http")
		}
	})
}
