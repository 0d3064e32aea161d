package hcm

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"

	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	mutationv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/http/early_header_mutation/header_mutation/v3"
	customv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/http/original_ip_detection/custom_header/v3"
	xffv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/http/original_ip_detection/xff/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/lateen-mesh/lateen/proxy/http"
	"github.com/lateen-mesh/lateen/proxy/match"
	"github.com/lateen-mesh/lateen/proxy/route"
)

// A detection is one way to find the client behind the peer of the connection
// (original_ip_detection_extensions): by x-forwarded-for, or by a header of its own.
type detection struct {
	header  string     // "": x-forwarded-for
	hops    int        // how many addresses of it are of proxies
	proxies match.CIDR // instead of hops: whose addresses are
	listed  bool       // proxies are
	appends bool       // the peer is added to x-forwarded-for
	trusted bool       // a client that is named by header can be an internal one
	reject  int        // the answer to a request without a client; 0: none
}

// detect is the address of the client, invalid for none, and whether it can be trusted to
// be the only one before us.
func (d *detection) detect(s *http.Stream) (client netip.AddrPort, alone bool) {
	h := &s.Request.Headers
	if d.header != "" {
		value, _ := h.First(d.header)
		client = parseAddress(value)
		return client, d.trusted && client.IsValid()
	}
	xff := h.Get("x-forwarded-for")
	switch {
	case d.listed:
		if !d.proxies.Match(s.Info.Source().Addr()) {
			return netip.AddrPort{}, false
		}
		return d.beyond(xff)
	case xff == nil:
		return netip.AddrPort{}, false
	}
	return nthAddress(xff, d.hops)
}

// beyond is the last address of x-forwarded-for that is of no trusted proxy, or the first of
// all where each is.
func (d *detection) beyond(xff []byte) (netip.AddrPort, bool) {
	alone := !bytes.Contains(xff, comma)
	for {
		i := bytes.LastIndexByte(xff, ',')
		a := parseAddress(xff[i+1:])
		if i < 0 || !a.IsValid() || !d.proxies.Match(a.Addr()) {
			return a, alone && a.IsValid()
		}
		xff = xff[:i]
	}
}

// parseAddress reads an address; it is invalid where text is none, as it is with a port.
func parseAddress(text []byte) netip.AddrPort {
	a, err := netip.ParseAddr(string(bytes.TrimSpace(text)))
	if err != nil {
		return netip.AddrPort{}
	}
	return netip.AddrPortFrom(a, 0)
}

// compileDetections reads how the client is found where that is not the peer.
func (m *manager) compileDetections(c *hcmv3.HttpConnectionManager) error {
	list := c.GetOriginalIpDetectionExtensions()
	switch {
	case len(list) == 0:
		m.edge.detections = []detection{{hops: m.edge.hops}}
		return nil
	case m.edge.remote:
		return errors.New("Original IP detection extensions and use_remote_address may not be mixed") //nolint:staticcheck // Envoy's words
	case m.edge.hops > 0:
		return errors.New("Original IP detection extensions and xff_num_trusted_hops may not be mixed") //nolint:staticcheck // Envoy's words
	}
	for i, x := range list {
		d, err := newDetection(x.GetTypedConfig())
		if err != nil {
			return fmt.Errorf("original_ip_detection_extensions[%d]: %w", i, err)
		}
		m.edge.detections = append(m.edge.detections, d)
	}
	return nil
}

func newDetection(cfg *anypb.Any) (d detection, err error) {
	var xff xffv3.XffConfig
	var custom customv3.CustomHeaderConfig
	switch {
	case cfg.MessageIs(&xff):
		if err := cfg.UnmarshalTo(&xff); err != nil {
			return d, err
		}
		skip := xff.GetSkipXffAppend() // true where it is not set
		d.hops, d.appends, d.listed = int(xff.GetXffNumTrustedHops()), skip != nil && !skip.GetValue(), len(xff.GetXffTrustedCidrs().GetCidrs()) > 0
		if xff.GetXffTrustedCidrs() != nil && d.hops > 0 {
			return d, errors.New("Cannot set both xff_num_trusted_hops and xff_trusted_cidrs") //nolint:staticcheck // Envoy's words
		}
		if d.proxies, err = match.NewCIDR(xff.GetXffTrustedCidrs().GetCidrs()...); err != nil {
			return d, fmt.Errorf("xff_trusted_cidrs.cidrs%w", err) // which names [n]
		}
		return d, nil
	case cfg.MessageIs(&custom):
		if err := cfg.UnmarshalTo(&custom); err != nil {
			return d, err
		}
		if err := custom.ValidateAll(); err != nil {
			return d, err
		}
		d.header, d.trusted = custom.GetHeaderName(), custom.GetAllowExtensionToSetAddressAsTrusted()
		if status := custom.GetRejectWithStatus(); status != nil {
			if d.reject = int(status.GetCode()); d.reject < 400 || d.reject > 511 {
				d.reject = int(typev3.StatusCode_Forbidden)
			}
		}
		return d, nil
	}
	return d, fmt.Errorf("%s: not supported", cfg.GetTypeUrl())
}

// compileEarlyEdits reads what is done to the head of a request before anything looks at it
// (early_header_mutation_extensions).
func (m *manager) compileEarlyEdits(c *hcmv3.HttpConnectionManager) error {
	for i, x := range c.GetEarlyHeaderMutationExtensions() {
		var edits mutationv3.HeaderMutation
		if !x.GetTypedConfig().MessageIs(&edits) {
			return fmt.Errorf("early_header_mutation_extensions[%d]: %s: not supported", i, x.GetTypedConfig().GetTypeUrl())
		}
		if err := x.GetTypedConfig().UnmarshalTo(&edits); err != nil {
			return fmt.Errorf("early_header_mutation_extensions[%d]: %w", i, err)
		}
		if err := edits.ValidateAll(); err != nil {
			return fmt.Errorf("early_header_mutation_extensions[%d]: %w", i, err)
		}
		list, err := route.NewMutations("mutations", edits.GetMutations())
		if err != nil {
			return fmt.Errorf("early_header_mutation_extensions[%d]: %w", i, err)
		}
		m.earlyEdits = append(m.earlyEdits, list)
	}
	return nil
}
