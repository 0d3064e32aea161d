package route

import (
	"fmt"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/lateen-mesh/lateen/proxy/http"
	"github.com/lateen-mesh/lateen/proxy/xds"
	"github.com/lateen-mesh/lateen/wellknown"
)

// CompileEnv is what Compile may use of the proxy around it.
type CompileEnv struct {
	// Filters compile typed_per_filter_config, found by type URL.
	Filters []http.Factory
	// HTTP is handed to the factories.
	HTTP http.Env
	// HasCluster tells whether a cluster is there or on its way, for resources that set
	// validate_clusters; nil: not checked.
	HasCluster func(name string) bool
	// Static is a configuration that does not come by itself: its clusters are checked
	// unless validate_clusters is false.
	Static bool
}

// A Table is one compiled RouteConfiguration. It is immutable.
type Table struct {
	Name string
	// Edits are those of the RouteConfiguration itself.
	Edits Edits
	// SpecificWins is most_specific_header_mutations_wins: edits are applied from the
	// table to the route instead of from the route to the table.
	SpecificWins bool
	// PerFilter is typed_per_filter_config of the RouteConfiguration.
	PerFilter map[string]any
	Metadata  map[string]map[string]any

	// Source is the configuration itself where further virtual hosts come by themselves
	// (vhds), else nil.
	Source *routev3.RouteConfiguration

	hosts      hosts
	plainPaths bool // ignore_path_parameters_in_path_matching
}

// Type is how the xDS client decodes route configurations.
func Type(env CompileEnv) xds.Type[*Table] {
	return xds.Type[*Table]{URL: wellknown.RouteType, Decode: func(_ string, body *anypb.Any) (*Table, error) {
		var rc routev3.RouteConfiguration
		if err := body.UnmarshalTo(&rc); err != nil {
			return nil, fmt.Errorf("route configuration: %w", err)
		}
		return Compile(&rc, env)
	}}
}
