package transport

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	proxyprotocolv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/proxy_protocol/v3"
	"google.golang.org/protobuf/proto"

	"github.com/lateen-mesh/lateen/proxy/stats"
	"github.com/lateen-mesh/lateen/proxy/xds"
)

// ProxiedKey is the filter state under which a connection carries its *Proxied.
const ProxiedKey = "envoy.network.proxy_protocol_options"

// Proxied is what the PROXY protocol tells about a connection: who asked for it, and
// where they wanted to go. Both addresses are of one family, or invalid.
type Proxied struct {
	From, To netip.AddrPort
	TLVs     []TLV
}

// Opaque says that the state has no text form.
func (p *Proxied) Opaque() {}

// A TLV is one type-length-value entry of a header of version 2.
type TLV struct {
	Type  byte
	Value []byte
}

// Header is how the PROXY protocol begins a connection made for p, of version 1 or 2,
// without TLVs.
func (p *Proxied) Header(v2 bool) []byte {
	plain := &Proxied{From: p.From, To: p.To}
	if v2 {
		return (&proxySender{}).headerV2(plain)
	}
	return headerV1(plain, nil)
}

const proxyProtocolURL = "type.googleapis.com/envoy.extensions.transport_sockets.proxy_protocol.v3.ProxyProtocolUpstreamTransport"

// proxySender is a socket that begins its connections with a PROXY protocol header.
type proxySender struct {
	ClientSocket
	v2      bool
	pass    TLVChoice
	added   []TLV
	tooLong *stats.Counter // headers whose TLVs did not fit
}

func decodeProxySender(config []byte, env Env) (ClientSocket, error) {
	var c proxyprotocolv3.ProxyProtocolUpstreamTransport
	if err := proto.Unmarshal(config, &c); err != nil {
		return nil, err
	}
	if err := xds.Only(&c, "config", "transport_socket"); err != nil {
		return nil, err
	}
	if c.GetTransportSocket() == nil {
		return nil, errors.New("transport_socket: value is required")
	}
	pass, err := NewTLVChoice(c.GetConfig().GetPassThroughTlvs())
	if err != nil {
		return nil, fmt.Errorf("config.pass_through_tlvs.%w", err)
	}
	p := &proxySender{v2: c.GetConfig().GetVersion() == corev3.ProxyProtocolConfig_V2, pass: pass}
	if p.added, err = CompileTLVs(c.GetConfig().GetAddedTlvs()); err != nil {
		return nil, fmt.Errorf("config.added_tlvs%w", err)
	}
	if p.ClientSocket, err = DecodeClient(c.GetTransportSocket(), env); err != nil {
		return nil, err
	}
	if env.Stats != nil {
		version := "upstream_proxy_protocol.v1."
		if p.v2 {
			version = "upstream_proxy_protocol.v2."
		}
		p.tooLong = env.Stats.Counter(version + "v2_tlvs_exceed_max_length")
	}
	return p, nil
}

// CompileTLVs reads the entries of a configuration; values that are made for each
// connection do not exist here.
func CompileTLVs(list []*corev3.TlvEntry) ([]TLV, error) {
	var out []TLV
	for i, e := range list {
		switch {
		case e.GetType() > 255:
			return nil, fmt.Errorf("[%d].type: value must be less than 256", i)
		case e.GetFormatString() != nil:
			return nil, fmt.Errorf("[%d].format_string: not supported", i)
		}
		out = append(out, TLV{byte(e.GetType()), e.GetValue()})
	}
	return out, nil
}

// Tells says that connections differ by whom they are made for.
func (p *proxySender) Tells() {}

// Connect sends the header ahead of whatever the socket within sends.
func (p *proxySender) Connect(ctx context.Context, raw net.Conn, t Target) (Conn, error) {
	var header []byte
	if p.v2 {
		header = p.headerV2(t.Proxied)
	} else {
		header = headerV1(t.Proxied, raw)
	}
	if deadline, ok := ctx.Deadline(); ok {
		_ = raw.SetWriteDeadline(deadline) // fails on a closed socket, which the write finds out
	}
	if _, err := raw.Write(header); err != nil {
		_ = closeOnce(raw)
		return nil, dialError(err)
	}
	_ = raw.SetWriteDeadline(noDeadline)
	return p.ClientSocket.Connect(ctx, raw, t)
}

// headerV1 names the proxy's own addresses where there is nobody to speak for.
func headerV1(p *Proxied, raw net.Conn) []byte {
	var from, to netip.AddrPort
	if p != nil {
		from, to = p.From, p.To
	} else {
		from, to = addrPort(raw.LocalAddr()), addrPort(raw.RemoteAddr())
	}
	if !from.IsValid() || !to.IsValid() {
		return []byte("PROXY UNKNOWN\r\n")
	}
	family := "TCP6"
	if from.Addr().Is4() {
		family = "TCP4"
	}
	return fmt.Appendf(nil, "PROXY %s %s %s %d %d\r\n", family, from.Addr(), to.Addr(), from.Port(), to.Port())
}

const signatureV2 = "\r\n\r\n\x00\r\nQUIT\n"

// headerV2 is LOCAL without addresses where there is nobody to speak for.
func (p *proxySender) headerV2(who *Proxied) []byte {
	b := []byte(signatureV2)
	if who == nil || !who.From.IsValid() || !who.To.IsValid() {
		return append(b, 0x20, 0, 0, 0)
	}
	var addresses []byte
	family := byte(0x21)
	if who.From.Addr().Is4() && who.To.Addr().Is4() {
		family = 0x11
		addresses = append(addresses, who.From.Addr().AsSlice()...)
		addresses = append(addresses, who.To.Addr().AsSlice()...)
	} else {
		from, to := who.From.Addr().As16(), who.To.Addr().As16()
		addresses = append(append(addresses, from[:]...), to[:]...)
	}
	addresses = binary.BigEndian.AppendUint16(addresses, who.From.Port())
	addresses = binary.BigEndian.AppendUint16(addresses, who.To.Port())
	tlvs := p.tlvs(who)
	if len(addresses)+len(tlvs) > 0xffff {
		tlvs = nil
		p.tooLong.Inc()
	}
	b = append(b, 0x21, family)
	b = binary.BigEndian.AppendUint16(b, uint16(len(addresses)+len(tlvs)))
	return append(append(b, addresses...), tlvs...)
}

// tlvs are the configured ones, then those of the connection that may pass and whose
// type is not among the first.
func (p *proxySender) tlvs(who *Proxied) (b []byte) {
	for _, t := range p.added {
		b = appendTLV(b, t)
	}
	for _, t := range who.TLVs {
		if p.pass.Has(t.Type) && !slices.ContainsFunc(p.added, func(o TLV) bool { return o.Type == t.Type }) {
			b = appendTLV(b, t)
		}
	}
	return b
}

func appendTLV(b []byte, t TLV) []byte {
	b = binary.BigEndian.AppendUint16(append(b, t.Type), uint16(len(t.Value)))
	return append(b, t.Value...)
}

// A TLVChoice says which TLVs pass. The zero value lets none.
type TLVChoice struct {
	all   bool
	types [256]bool
}

// NewTLVChoice compiles pass_through_tlvs; nil is none.
func NewTLVChoice(c *corev3.ProxyProtocolPassThroughTLVs) (TLVChoice, error) {
	var out TLVChoice
	if c == nil {
		return out, nil
	}
	out.all = c.GetMatchType() == corev3.ProxyProtocolPassThroughTLVs_INCLUDE_ALL
	for i, t := range c.GetTlvType() {
		if t > 255 {
			return out, fmt.Errorf("tlv_type[%d]: value must be less than 256", i)
		}
		out.types[t] = true
	}
	return out, nil
}

// Has reports whether TLVs of type t pass.
func (c *TLVChoice) Has(t byte) bool { return c.all || c.types[t] }
