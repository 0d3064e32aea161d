package listener

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net/netip"
	"strconv"
	"strings"
)

// proxyProtocol reads the PROXY protocol's header (versions 1 and 2), takes it off
// the stream and puts the addresses in force that it names.
type proxyProtocol struct {
	optional bool // streams without a header pass
}

// proxyHeader is a parsed header: its size and addresses, invalid for LOCAL and UNKNOWN.
type proxyHeader struct {
	size     int
	from, to netip.AddrPort
}

const (
	signatureV2 = "\r\n\r\n\x00\r\nQUIT\n"
	signatureV1 = "PROXY "
	maxV1       = 107
	maxV2       = 16 + 2048 // addresses and TLVs; TLVs are not used
)

var errProxyHeader = errors.New("proxy protocol: malformed header")

func (p *proxyProtocol) inspect(a *accepted) error {
	var h proxyHeader
	var s sight
	err := a.peek.until(func(b []byte) bool {
		h, s = parseProxyHeader(b)
		return s != more
	})
	switch {
	case err != nil:
		return err
	case s == absent && p.optional && h.size == 0:
		return nil
	case s == absent:
		return errProxyHeader
	}
	if _, err := io.CopyN(io.Discard, a.raw, int64(h.size)); err != nil {
		return err
	}
	if h.from.IsValid() {
		a.remote = h.from
	}
	if h.to.IsValid() && h.to != a.local {
		a.local, a.restored = h.to, true
	}
	return nil
}

// parseProxyHeader returns absent with size 0 when the stream does not begin with a
// signature, with size -1 when what follows the signature is wrong.
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
	bad := proxyHeader{size: -1}
	end := bytes.Index(b[:min(len(b), maxV1)], []byte("\r\n"))
	if end < 0 {
		if len(b) >= maxV1 {
			return bad, absent
		}
		return proxyHeader{}, more
	}
	h := proxyHeader{size: end + 2}
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
	bad := proxyHeader{size: -1}
	if len(b) < 16 {
		return proxyHeader{}, more
	}
	command, family := b[12], b[13]
	h := proxyHeader{size: 16 + int(binary.BigEndian.Uint16(b[14:]))}
	if command>>4 != 2 || command&15 > 1 || h.size > maxV2 {
		return bad, absent
	}
	if len(b) < h.size {
		return proxyHeader{}, more
	}
	if command&15 == 0 || family == 0 { // LOCAL, or UNSPEC: the socket's own addresses
		return h, present
	}
	rest := b[16:h.size]
	switch {
	case family == 0x11 && len(rest) >= 12:
		h.from = v2Address(rest[0:4], rest[8:10])
		h.to = v2Address(rest[4:8], rest[10:12])
	case family == 0x21 && len(rest) >= 36:
		h.from = v2Address(rest[0:16], rest[32:34])
		h.to = v2Address(rest[16:32], rest[34:36])
	default:
		return bad, absent
	}
	return h, present
}

func v2Address(ip, port []byte) netip.AddrPort {
	a, _ := netip.AddrFromSlice(ip) // four or sixteen bytes by construction
	return netip.AddrPortFrom(a, binary.BigEndian.Uint16(port))
}
