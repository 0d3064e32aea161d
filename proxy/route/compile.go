package route

import (
	"errors"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
)

// Compile checks and compiles a RouteConfiguration. Its error names virtual host,
// route and field; the whole resource is refused, what was in force stays.
func Compile(rc *routev3.RouteConfiguration, env CompileEnv) (*Table, error) {
	return nil, errors.New("not built yet")
}

type hosts struct{}

type matcher struct{}

// A HeaderMatcher is a compiled HeaderMatcher of xDS: conditions on one header.
type HeaderMatcher struct{}
