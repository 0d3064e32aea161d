package hcm

import (
	"fmt"
	"strings"

	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"

	"github.com/lateen-mesh/lateen/proxy/http"
	"github.com/lateen-mesh/lateen/proxy/streaminfo"
)

// An upgrade is one of upgrade_configs: a protocol that a connection may change to, or
// CONNECT.
type upgrade struct {
	on    bool   // where the route does not say otherwise
	chain *chain // nil: that of all requests
}

func (m *manager) compileUpgrades(c *hcmv3.HttpConnectionManager) error {
	m.upgrades = map[string]*upgrade{}
	for i, u := range c.GetUpgradeConfigs() {
		name := strings.ToLower(u.GetUpgradeType())
		if m.upgrades[name] != nil {
			return fmt.Errorf("upgrade_configs[%d]: there are two for %q", i, name)
		}
		m.upgrades[name] = &upgrade{on: u.GetEnabled() == nil || u.GetEnabled().GetValue()}
	}
	return nil
}

// upgrade asks whether a request that wants another protocol, or a tunnel, may have it,
// and chooses its chain. False: the answer is r.
func (st *stream) upgrade() (r http.Reply, ok bool) {
	m, req := st.c.m, &st.Request
	connect := string(req.Method) == "CONNECT"
	if !connect && req.Upgrade == nil {
		return r, true
	}
	own, allowed := st.mayUpgrade()
	if !allowed {
		if st.target.Route == nil {
			return r, true // there is no route, as the router is about to say
		}
		m.stats.rqWS.Inc()
		st.closing = true // what follows may be the other protocol already
		return http.Reply{Status: 403, Details: "upgrade_failed", GRPCStatus: -1}, false
	}
	st.upgraded = true
	m.stats.upgradesTotal.Inc()
	m.stats.upgradesActive.Inc()
	if own != nil && own.chain != nil {
		st.chain = own.chain
		st.chain.overrides(&st.Stream, &st.target)
	}
	return r, true
}

// mayUpgrade reports that the connection manager and the route allow the protocol, and
// what the former says of it, nil for nothing.
func (st *stream) mayUpgrade() (own *upgrade, allowed bool) {
	name := upgradeName(&st.Request)
	own = st.c.m.upgrades[name]
	if st.target.Route != nil && st.target.Route.Forward != nil {
		if on, set := st.target.Route.Forward.Upgrades[name]; set {
			return own, on
		}
	}
	return own, own != nil && own.on
}

// upgradeName is what upgrade_configs call the protocol, or tunnel, that a request asks for.
func upgradeName(r *http.Request) string {
	if len(r.Upgrade) == 0 {
		return "connect"
	}
	return string(lower(r.Upgrade))
}

func lower(b []byte) []byte {
	out := make([]byte, len(b))
	for i, c := range b {
		out[i] = http.Lower(c)
	}
	return out
}

// Tunnel ends the reading ahead, so that the bytes of the other protocol can be read.
func (st *stream) Tunnel() { st.by.tunnel() }

// unconnected reports that a tunnel could not be opened, or that its upstream has torn it.
func (st *stream) unconnected() bool {
	asked := st.Request.Upgrade != nil || string(st.Request.Method) == "CONNECT"
	return asked && (st.Info.Flags.Has(streaminfo.UpstreamConnectionFailure) || st.Info.Flags.Has(streaminfo.UpstreamConnectionTermination))
}

// established writes the line of a tunnel that the answer has opened.
func (st *stream) established() {
	if !st.upgraded || !st.c.m.early.tunnel {
		return
	}
	if code := st.Response.Status; code == 101 || st.Request.Upgrade == nil && code/100 == 2 {
		st.logEarly(logTunnel)
	}
}
