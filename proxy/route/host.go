package route

import (
	"fmt"
	"maps"
	"slices"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
)

// A Host is a compiled virtual host that has come apart from its table (VHDS).
type Host struct {
	host    *VirtualHost
	domains []string
}

// CompileHost checks and compiles a virtual host of a table that was compiled with the same
// environment. Its error names virtual host, route and field.
func CompileHost(t *Table, v *routev3.VirtualHost, env CompileEnv) (*Host, error) {
	vh, err := newCompiler(t.Source, env).virtualHost(v)
	if err == nil {
		err = v.ValidateAll()
	}
	if err != nil {
		return nil, fmt.Errorf("virtual host %q: %w", v.GetName(), err)
	}
	return &Host{vh, v.GetDomains()}, nil
}

// With is the table with virtual hosts that have come to it. It fails when a name or a domain
// is there twice.
func (t *Table) With(list []*Host) (*Table, error) {
	all, names := *t, map[string]bool{}
	all.hosts = t.hosts.clone()
	for _, v := range t.Source.GetVirtualHosts() {
		names[v.GetName()] = true
	}
	for _, h := range list {
		if err := all.addHost(h.host, h.domains, names); err != nil {
			return nil, fmt.Errorf("route configuration %q: virtual host %q: %w", t.Name, h.host.Name, err)
		}
	}
	all.hosts.order()
	return &all, nil
}

// clone is a copy that can be added to.
func (h *hosts) clone() hosts {
	c := *h
	c.exact = maps.Clone(h.exact)
	wildcards := func(list []wildcard) []wildcard {
		list = slices.Clone(list)
		for i := range list {
			list[i].hosts = maps.Clone(list[i].hosts)
		}
		return list
	}
	c.suffixes, c.prefixes = wildcards(h.suffixes), wildcards(h.prefixes)
	return c
}
