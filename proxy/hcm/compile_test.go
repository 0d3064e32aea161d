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
		byXFF        = `{"name": "x", "typed_config": {"@type": "type.googleapis.com/envoy.extensions.http.original_ip_detection.xff.v3.XffConfig"`
	)
	cases := []struct{ name, json, want string }{
		{"complete", all, ""},
		{"no stat_prefix", filters + "," + routes, "stat_prefix: must not be empty"},
		{"no routes", prefix + "," + filters, "rds, route_config or scoped_routes: one must be set"},
		{"rds without a client", prefix + "," + filters + `, "rds": {"route_config_name": "x", "config_source": {"ads": {}}}`, "rds.config_source: only ads is supported"},
		{"no filters", prefix + "," + routes, "http_filters: must end with a terminal filter"},
		{"after the terminal filter", prefix + "," + routes + `, "http_filters": [` + routerFilter + "," + routerFilter + "]", `http_filters[1] "r": comes after a terminal filter`},
		{"unknown filter", prefix + "," + routes + `, "http_filters": [{"name": "f", "typed_config": {"@type": "type.googleapis.com/xds.type.v3.TypedStruct",
			"type_url": "type.googleapis.com/what"}}, ` + routerFilter + "]", `http_filters[0] "f": typed_config: type.googleapis.com/what: no such filter`},
		{"unknown but optional", prefix + "," + routes + `, "http_filters": [{"name": "f", "is_optional": true}, ` + routerFilter + "]", ""},
		{"filter by discovery", prefix + "," + routes + `, "http_filters": [{"name": "f", "config_discovery": {}}, ` + routerFilter + "]", "config_discovery.type_urls: one is needed"},
		{"router option", prefix + "," + routes + `, "http_filters": [{"name": "r", "typed_config": {"@type":
			"type.googleapis.com/envoy.extensions.filters.http.router.v3.Router", "upstream_log": [{}]}}]`,
			`http_filters[0] "r": router: upstream_log: not supported`},
		{"scoped routes", prefix + "," + filters + `, "scoped_routes": {"name": "s", "scoped_rds": {}}`, "scoped_routes: scoped_rds: not supported"},
		{"trace provider", all + `, "tracing": {"provider": {"name": "zipkin"}}`, "tracing.provider \"zipkin\" (): not supported"},
		{"filters of an upgrade", all + `, "upgrade_configs": [{"upgrade_type": "websocket", "filters": [` + routerFilter + `,` + routerFilter + `]}]`, "upgrade_configs[0].filters[1] "},
		{"an upgrade twice", all + `, "upgrade_configs": [{"upgrade_type": "websocket"}, {"upgrade_type": "WebSocket"}]`, "upgrade_configs[1]: there are two for \"websocket\""},
		{"bad range", all + `, "internal_address_config": {"cidr_ranges": [{"address_prefix": "nowhere", "prefix_len": 8}]}`, "internal_address_config.cidr_ranges[0].address_prefix: "},
		{"client by header and by connection", all + `, "use_remote_address": true, "original_ip_detection_extensions": [` + byXFF + `}}]`,
			"Original IP detection extensions and use_remote_address may not be mixed"},
		{"client by header and by hops", all + `, "xff_num_trusted_hops": 1, "original_ip_detection_extensions": [` + byXFF + `}}]`,
			"Original IP detection extensions and xff_num_trusted_hops may not be mixed"},
		{"client by hops and by ranges", all + `, "original_ip_detection_extensions": [` + byXFF + `, "xff_num_trusted_hops": 1, "xff_trusted_cidrs": {}}}]`,
			"original_ip_detection_extensions[0]: Cannot set both xff_num_trusted_hops and xff_trusted_cidrs"},
		{"client by bad ranges", all + `, "original_ip_detection_extensions": [` + byXFF + `, "xff_trusted_cidrs": {"cidrs": [{"address_prefix": "nowhere"}]}}}]`,
			"original_ip_detection_extensions[0]: xff_trusted_cidrs.cidrs[0].address_prefix: "},
		{"client by nothing known", all + `, "original_ip_detection_extensions": [` + routerFilter + `]`, "original_ip_detection_extensions[0]: type.googleapis.com/envoy.extensions.filters.http.router.v3.Router: not supported"},
		{"early edits that are none", all + `, "early_header_mutation_extensions": [` + routerFilter + `]`, "early_header_mutation_extensions[0]: type.googleapis.com/envoy.extensions.filters.http.router.v3.Router: not supported"},
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
