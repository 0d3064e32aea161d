package listener

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strconv"
	"strings"
	"unicode/utf8"

	proxyprotocolpb "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/proxy_protocol/v3"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/lateen-mesh/lateen/proxy/stats"
	"github.com/lateen-mesh/lateen/proxy/transport"
	"github.com/lateen-mesh/lateen/proxy/xds"
)

// proxyProtocol reads the PROXY protocol's header (versions 1 and 2), takes it off
// the stream and puts the addresses in force that it names.
type proxyProtocol struct {
	optional  bool    // streams without a header pass
	forbidden [3]bool // by version
	rules     []tlvRule
	toState   bool // what rules find goes to the filter state, not to the metadata
	pass      transport.TLVChoice

	allowed, refused *stats.Counter // without a header
	versions         [3]versionStats
}

// A tlvRule says under which name the value of a TLV is kept.
type tlvRule struct {
	kind       byte
	space, key string
	base64     bool
}

type versionStats struct{ found, disallowed, failed *stats.Counter }

// proxyHeader is a parsed header: its size and addresses, invalid for LOCAL and UNKNOWN.
type proxyHeader struct {
	version  int
	size     int
	from, to netip.AddrPort
	tlvs     string
}

const (
	signatureV2 = "\r\n\r\n\x00\r\nQUIT\n"
	signatureV1 = "PROXY "
	maxV1       = 107
	filterName  = "envoy.filters.listener.proxy_protocol"
)

func buildProxyProtocol(cfg *anypb.Any, store *stats.Store) (listenerFilter, error) {
	var c proxyprotocolpb.ProxyProtocol
	if err := cfg.UnmarshalTo(&c); cfg != nil && err != nil {
		return nil, err
	}
	if err := xds.Only(&c, "rules", "allow_requests_without_proxy_protocol", "pass_through_tlvs", "disallowed_versions", "stat_prefix", "tlv_location"); err != nil {
		return nil, err
	}
	if err := c.Validate(); err != nil {
		return nil, err
	}
	p := &proxyProtocol{optional: c.GetAllowRequestsWithoutProxyProtocol(), toState: c.GetTlvLocation() == proxyprotocolpb.ProxyProtocol_FILTER_STATE}
	for _, v := range c.GetDisallowedVersions() {
		p.forbidden[1+min(v, 1)] = true
	}
	var err error
	if p.pass, err = transport.NewTLVChoice(c.GetPassThroughTlvs()); err != nil {
		return nil, fmt.Errorf("pass_through_tlvs.%w", err)
	}
	for _, r := range c.GetRules() {
		on := r.GetOnTlvPresent()
		rule := tlvRule{byte(r.GetTlvType()), on.GetMetadataNamespace(), on.GetKey(), on.GetValueStringEncoding() == proxyprotocolpb.ProxyProtocol_KeyValuePair_BASE64}
		if rule.space == "" {
			rule.space = filterName
		}
		p.rules = append(p.rules, rule)
	}
	prefix := "proxy_proto."
	if c.GetStatPrefix() != "" {
		prefix += c.GetStatPrefix() + "."
	}
	p.count(store.Scope(prefix))
	return p, nil
}

func (p *proxyProtocol) count(s *stats.Scope) {
	p.allowed, p.refused = s.Counter("not_found_allowed"), s.Counter("not_found_disallowed")
	for v := 1; v <= 2; v++ {
		name := fmt.Sprintf("versions.v%d.", v)
		p.versions[v] = versionStats{s.Counter(name + "found"), s.Counter(name + "disallowed"), s.Counter(name + "error")}
	}
}

var (
	errProxyHeader  = errors.New("proxy protocol: malformed header")
	errNoHeader     = errors.New("proxy protocol: no header")
	errProxyVersion = errors.New("proxy protocol: a version that is not allowed")
)

func (p *proxyProtocol) inspect(a *accepted) error {
	var h proxyHeader
	var s sight
	err := a.peek.until(func(b []byte) bool {
		h, s = parseProxyHeader(b)
		if p.optional && p.forbidden[h.version] {
			h, s = proxyHeader{}, absent // not even looked for
		}
		return s != more || h.version == 2 && h.size > 0
	})
	if err == nil && s == more { // a long one does not fit into what can be looked at
		return p.read(a, h.size)
	}
	switch {
	case err != nil:
		p.versions[h.version].failed.Inc()
		return err
	case h.version == 0 && p.optional && h.size == 0:
		p.allowed.Inc()
		return nil
	case h.version == 0:
		p.refused.Inc()
		return errNoHeader
	case p.forbidden[h.version]:
		p.versions[h.version].disallowed.Inc()
		return errProxyVersion
	case s == absent:
		p.versions[h.version].failed.Inc()
		return errProxyHeader
	}
	if err := a.take(h.size); err != nil {
		return err
	}
	p.versions[h.version].found.Inc()
	return p.apply(a, h)
}

// read takes a header of version 2 whose size is known off the stream.
func (p *proxyProtocol) read(a *accepted, size int) error {
	if p.forbidden[2] {
		p.versions[2].disallowed.Inc()
		return errProxyVersion
	}
	b := make([]byte, size)
	_, err := io.ReadFull(a.raw, b)
	h, s := parseProxyHeader(b)
	if err == nil && s != present {
		err = errProxyHeader
	}
	if err != nil {
		p.versions[2].failed.Inc()
		return err
	}
	p.versions[2].found.Inc()
	return p.apply(a, h)
}

// take removes bytes that were looked at from the stream.
func (a *accepted) take(n int) error {
	_, err := io.CopyN(io.Discard, a.raw, int64(n))
	return err
}

// apply puts in force what a header says.
func (p *proxyProtocol) apply(a *accepted, h proxyHeader) error {
	if h.from.IsValid() {
		a.remote, a.told = h.from, h.from
	}
	if h.to.IsValid() && h.to != a.local {
		a.local, a.restored = h.to, true
	}
	told := &transport.Proxied{From: a.remote, To: a.local}
	for b := []byte(h.tlvs); len(b) >= 3; {
		n := 3 + int(binary.BigEndian.Uint16(b[1:]))
		if n > len(b) {
			p.versions[h.version].failed.Inc()
			return errProxyHeader
		}
		kind, value := b[0], b[3:n]
		b = b[n:]
		p.keep(a, kind, value)
		if p.pass.Has(kind) {
			told.TLVs = append(told.TLVs, transport.TLV{Type: kind, Value: bytes.Clone(value)})
		}
	}
	a.setState(transport.ProxiedKey, told)
	return nil
}

// keep stores a value under the name that a rule has for it.
func (p *proxyProtocol) keep(a *accepted, kind byte, value []byte) {
	for _, r := range p.rules {
		if r.kind != kind {
			continue
		}
		text := sanitized(value)
		if r.base64 {
			text = base64.StdEncoding.EncodeToString(value)
		}
		if p.toState {
			a.setTLV(r.key, text)
			continue
		}
		if a.metadata == nil {
			a.metadata = map[string]map[string]any{}
		}
		if a.metadata[r.space] == nil {
			a.metadata[r.space] = map[string]any{}
		}
		a.metadata[r.space][r.key] = text
	}
}

// tlvKey is the filter state under which the values that rules keep are found.
const tlvKey = "envoy.network.proxy_protocol.tlv"

// sanitized is value with "!" in the place of each byte that is no UTF-8.
func sanitized(value []byte) string {
	var b strings.Builder
	for len(value) > 0 {
		r, n := utf8.DecodeRune(value)
		if r == utf8.RuneError && n == 1 {
			b.WriteByte('!')
		} else {
			b.Write(value[:n])
		}
		value = value[n:]
	}
	return b.String()
}

// setTLV puts a value into the one object of filter state that holds them all.
func (a *accepted) setTLV(key, text string) {
	all, _ := a.state[tlvKey].(map[string]any)
	if all == nil {
		all = map[string]any{}
		a.setState(tlvKey, all)
	}
	all[key] = text
}

func (a *accepted) setState(key string, v any) {
	if a.state == nil {
		a.state = map[string]any{}
	}
	a.state[key] = v
}

// parseProxyHeader returns absent with version 0 when the stream does not begin with a
// signature, with its version when what follows the signature is wrong.
func parseProxyHeader(b []byte) (proxyHeader, sight) {
	if n := min(len(b), len(signatureV2)); string(b[:n]) == signatureV2[:n] {
		if n < len(signatureV2) {
			return proxyHeader{}, more
		}
		return parseV2(b)
	}
	if n := min(len(b), len(signatureV1)); string(b[:n]) == signatureV1[:n] {
		if n < len(signatureV1) {
			return proxyHeader{}, more
		}
		return parseV1(b)
	}
	return proxyHeader{}, absent
}

func parseV1(b []byte) (proxyHeader, sight) {
	bad := proxyHeader{version: 1}
	end := bytes.Index(b[:min(len(b), maxV1)], []byte("\r\n"))
	if end < 0 {
		if len(b) >= maxV1 {
			return proxyHeader{size: -1}, absent // counted as none
		}
		return bad, more
	}
	h := proxyHeader{version: 1, size: end + 2}
	f := strings.Split(string(b[:end]), " ")
	if len(f) >= 2 && f[1] == "UNKNOWN" {
		return h, present
	}
	if len(f) != 6 || f[1] != "TCP4" && f[1] != "TCP6" {
		return bad, absent
	}
	var ok1, ok2 bool
	h.from, ok1 = v1Address(f[2], f[4], f[1] == "TCP4")
	h.to, ok2 = v1Address(f[3], f[5], f[1] == "TCP4")
	if !ok1 || !ok2 {
		return bad, absent
	}
	return h, present
}

func v1Address(ip, port string, v4 bool) (netip.AddrPort, bool) {
	a, err := netip.ParseAddr(ip)
	n, err2 := strconv.ParseUint(port, 10, 16)
	if err != nil || err2 != nil || a.Zone() != "" || a.Is4() != v4 {
		return netip.AddrPort{}, false
	}
	return netip.AddrPortFrom(a, uint16(n)), true
}

func parseV2(b []byte) (proxyHeader, sight) {
	bad := proxyHeader{version: 2}
	if len(b) < 16 {
		return bad, more
	}
	command, family := b[12], b[13]
	h := proxyHeader{version: 2, size: 16 + int(binary.BigEndian.Uint16(b[14:]))}
	if command>>4 != 2 || command&15 > 1 {
		return bad, absent
	}
	if len(b) < h.size {
		return h, more
	}
	if command&15 == 0 || family == 0 { // LOCAL, or UNSPEC: the socket's own addresses
		return h, present
	}
	rest := b[16:h.size]
	switch {
	case family>>4 == 1 && len(rest) >= 12: // whatever the transport says, as in Envoy
		h.from = v2Address(rest[0:4], rest[8:10])
		h.to, h.tlvs = v2Address(rest[4:8], rest[10:12]), string(rest[12:])
	case family>>4 == 2 && len(rest) >= 36:
		h.from = v2Address(rest[0:16], rest[32:34])
		h.to, h.tlvs = v2Address(rest[16:32], rest[34:36]), string(rest[36:])
	default:
		return bad, absent
	}
	return h, present
}

func v2Address(ip, port []byte) netip.AddrPort {
	a, _ := netip.AddrFromSlice(ip) // four or sixteen bytes by construction
	return netip.AddrPortFrom(a, binary.BigEndian.Uint16(port))
}
