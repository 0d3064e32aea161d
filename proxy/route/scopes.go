package route

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"

	"github.com/lateen-mesh/lateen/proxy/http"
	"github.com/lateen-mesh/lateen/proxy/xds"
)

// Scopes are route tables, one of which a request has by a key that is made of its headers.
// They are immutable.
type Scopes struct {
	fragments []fragment
	tables    map[string]*Table // by key, as appendFragment writes it
}

// CompileScopes checks and compiles the scoped routes of a connection manager, all of which
// stand in its configuration.
func CompileScopes(c *hcmv3.ScopedRoutes, env CompileEnv) (*Scopes, error) {
	if err := xds.Only(c, "name", "scope_key_builder", "rds_config_source", "scoped_route_configurations_list"); err != nil {
		return nil, err
	}
	if err := c.ValidateAll(); err != nil {
		return nil, err
	}
	s := &Scopes{tables: map[string]*Table{}}
	var err error
	if s.fragments, err = compileAll("scope_key_builder.fragments", c.GetScopeKeyBuilder().GetFragments(), newFragment); err != nil {
		return nil, err
	}
	keys := map[string]string{} // by name
	for i, one := range c.GetScopedRouteConfigurationsList().GetScopedRouteConfigurations() {
		if err := s.add(one, keys, env); err != nil {
			return nil, fmt.Errorf("scoped_route_configurations[%d] %q: %w", i, one.GetName(), err)
		}
	}
	return s, nil
}

// add takes a scope in: in place of one of its name, and of its key.
func (s *Scopes) add(c *routev3.ScopedRouteConfiguration, keys map[string]string, env CompileEnv) error {
	if err := xds.Only(c, "name", "route_configuration_name", "route_configuration", "key"); err != nil {
		return err
	}
	switch {
	case c.GetRouteConfigurationName() != "":
		return errors.New("Fetching routes via RDS (route_configuration_name) is not supported with inline scoped routes.") //nolint:revive,staticcheck // Envoy's words
	case c.GetRouteConfiguration() == nil:
		return errors.New("You must specify a route_configuration with inline scoped routes.") //nolint:revive,staticcheck // Envoy's words
	}
	t, err := Compile(c.GetRouteConfiguration(), env)
	if err != nil {
		return err
	}
	var key []byte
	for _, f := range c.GetKey().GetFragments() {
		key = appendFragment(key, []byte(f.GetStringKey()))
	}
	if before, ok := keys[c.GetName()]; ok {
		delete(s.tables, before)
	}
	keys[c.GetName()], s.tables[string(key)] = string(key), t
	return nil
}

// Find is the table of the scope that a request is in, nil for none.
func (s *Scopes) Find(r *http.Request) *Table {
	var room [256]byte
	key := room[:0]
	for i := range s.fragments {
		v, ok := s.fragments[i].of(r)
		if !ok {
			return nil
		}
		key = appendFragment(key, v)
	}
	return s.tables[string(key)]
}

// appendFragment writes a part of a key such that no two lists of parts are written alike.
func appendFragment(key, part []byte) []byte {
	return append(binary.AppendUvarint(key, uint64(len(part))), part...)
}

// A fragment is what one header gives to the key.
type fragment struct {
	header    string
	separator []byte // of elements, nil: the value is one
	index     int
	element   bool   // the one with a key, not that at index
	key, join []byte // of the element, and what stands behind its key
}

func newFragment(p *hcmv3.ScopedRoutes_ScopeKeyBuilder_FragmentBuilder) (f fragment, err error) {
	x := p.GetHeaderValueExtractor()
	f = fragment{header: strings.ToLower(x.GetName()), index: int(x.GetIndex())}
	if x.GetElementSeparator() != "" {
		f.separator = []byte(x.GetElementSeparator())
	}
	switch by := x.GetExtractType().(type) {
	case *hcmv3.ScopedRoutes_ScopeKeyBuilder_FragmentBuilder_HeaderValueExtractor_Index:
		if f.separator == nil && f.index > 0 {
			return f, errors.New("Index > 0 for empty string element separator.") //nolint:revive,staticcheck // Envoy's words
		}
	case *hcmv3.ScopedRoutes_ScopeKeyBuilder_FragmentBuilder_HeaderValueExtractor_Element:
		f.element, f.key, f.join = true, []byte(by.Element.GetKey()), []byte(by.Element.GetSeparator())
	default:
		return f, errors.New("HeaderValueExtractor extract_type not set.") //nolint:revive,staticcheck // Envoy's words
	}
	return f, nil
}

// of is the part of the key that a request has, false for none.
func (f *fragment) of(r *http.Request) ([]byte, bool) {
	rest, ok := r.Value(f.header, 0)
	if !ok {
		return nil, false
	}
	for i, more := 0, true; more; i++ {
		one := rest
		if more = f.separator != nil; more {
			one, rest, more = bytes.Cut(rest, f.separator)
		}
		if !f.element {
			if i == f.index {
				return one, true
			}
			continue
		}
		if key, value, _ := bytes.Cut(one, f.join); bytes.Equal(key, f.key) {
			return value, true
		}
	}
	return nil, false
}
