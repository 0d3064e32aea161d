package hcm_test

import (
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/lateen-mesh/lateen/proxy/filter/router"
	"github.com/lateen-mesh/lateen/proxy/hcm"
	"github.com/lateen-mesh/lateen/proxy/http"
	"github.com/lateen-mesh/lateen/proxy/network"
	"github.com/lateen-mesh/lateen/proxy/stats"
)

// TestRefused: what a connection manager asks for and is not had, or is wrong, is
// refused by the name of its field.
func TestRefused(t *testing.T) {
	const (
		routerFilter = `{"name": "r", "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}}`
		filters      = `"http_filters": [` + routerFilter + `]`
		routes       = `"route_config": {"name": "r"}`
		prefix       = `"stat_prefix": "p"`
		all          = prefix + "," + filters + "," + routes
	)
	cases := []struct{ name, json, want string }{
		{"complete", all, ""},
		{"no stat_prefix", filters + "," + routes, "stat_prefix: must not be empty"},
		{"no routes", prefix + "," + filters, "rds or route_config: one must be set"},
		{"rds without a client", prefix + "," + filters + `, "rds": {"route_config_name": "x", "config_source": {"ads": {}}}`, "rds.config_source: only ads is supported"},
		{"no filters", prefix + "," + routes, "http_filters: must end with a terminal filter"},
		{"after the terminal filter", prefix + "," + routes + `, "http_filters": [` + routerFilter + "," + routerFilter + "]", `http_filters[1] "r": comes after a terminal filter`},
		{"unknown filter", prefix + "," + routes + `, "http_filters": [{"name": "f", "typed_config": {"@type": "type.googleapis.com/xds.type.v3.TypedStruct",
			"type_url": "type.googleapis.com/what"}}, ` + routerFilter + "]", `http_filters[0] "f": typed_config: type.googleapis.com/what: no such filter`},
		{"unknown but optional", prefix + "," + routes + `, "http_filters": [{"name": "f", "is_optional": true}, ` + routerFilter + "]", ""},
		{"filter by discovery", prefix + "," + routes + `, "http_filters": [{"name": "f", "config_discovery": {}}, ` + routerFilter + "]", "config_discovery: not supported"},
		{"router option", prefix + "," + routes + `, "http_filters": [{"name": "r", "typed_config": {"@type":
			"type.googleapis.com/envoy.extensions.filters.http.router.v3.Router", "strict_check_headers": ["x-envoy-max-retries"]}}]`,
			`http_filters[0] "r": router: strict_check_headers: not supported`},
		{"HTTP/2 only", all + `, "codec_type": "HTTP2"`, "codec_type: HTTP2: not supported"},
		{"local replies", all + `, "local_reply_config": {"mappers": []}`, "local_reply_config: not supported"},
		{"scoped routes", prefix + "," + filters + `, "scoped_routes": {"name": "s"}`, "scoped_routes: not supported"},
		{"underscores", all + `, "common_http_protocol_options": {"headers_with_underscores_action": "REJECT_REQUEST"}`, "common_http_protocol_options.headers_with_underscores_action: not supported"},
		{"chunked length", all + `, "http_protocol_options": {"allow_chunked_length": true}`, "http_protocol_options.allow_chunked_length: not supported"},
		{"large heads", all + `, "max_request_headers_kb": 96`, "max_request_headers_kb: at most 60, got 96"},
		{"errors of a stream alone", all + `, "stream_error_on_invalid_http_message": true`, "stream_error_on_invalid_http_message: true: not supported"},
		{"trace provider", all + `, "tracing": {"provider": {"name": "zipkin"}}`, "tracing.provider \"zipkin\" (): not supported"},
		{"filters of an upgrade", all + `, "upgrade_configs": [{"upgrade_type": "websocket", "filters": [` + routerFilter + `]}]`, "upgrade_configs[0].filters: not supported"},
		{"bad range", all + `, "internal_address_config": {"cidr_ranges": [{"address_prefix": "nowhere", "prefix_len": 8}]}`, "internal_address_config.cidr_ranges[0].address_prefix: "},
		{"bad route", prefix + "," + filters + `, "route_config": {"name": "r", "vhds": {}}`, "route_config: "},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			a := &anypb.Any{}
			if err := protojson.Unmarshal([]byte(`{"@type": "`+hcm.TypeURL+`", `+c.json+`}`), a); err != nil {
				t.Fatal(err)
			}
			none := func(string) router.Cluster { return nil }
			built, err := hcm.Factory(hcm.Deps{Stats: stats.NewStore(), Filters: []http.Factory{router.Factory(router.Deps{Cluster: none})}}).
				New(a, network.Env{})
			switch {
			case c.want == "" && err != nil:
				t.Fatalf("refused: %v", err)
			case c.want == "":
				built.Close()
			case err == nil || !strings.Contains(err.Error(), c.want):
				t.Errorf("got %v, want %q in it", err, c.want)
			}
		})
	}
}
