package format

import (
	"net/netip"
	"strconv"
	"strings"

	"github.com/lateen-mesh/lateen/proxy/streaminfo"
)

func downstreamRemote(i *streaminfo.Info) netip.AddrPort       { return i.DownstreamRemote }
func downstreamDirectRemote(i *streaminfo.Info) netip.AddrPort { return i.DownstreamDirectRemote }
func downstreamLocal(i *streaminfo.Info) netip.AddrPort        { return i.DownstreamLocal }
func downstreamDirectLocal(i *streaminfo.Info) netip.AddrPort  { return i.DownstreamDirectLocal }
func upstreamLocal(i *streaminfo.Info) netip.AddrPort          { return i.UpstreamLocal }

// address, host and port are operators on an address; absent when it is not known.
func address(get func(*streaminfo.Info) netip.AddrPort) operator {
	return plain(operation{write: func(dst []byte, r Record) ([]byte, bool) {
		a := get(r.Info)
		if !a.IsValid() {
			return dst, false
		}
		return netip.AddrPortFrom(a.Addr().Unmap(), a.Port()).AppendTo(dst), true
	}})
}

func host(get func(*streaminfo.Info) netip.AddrPort) operator {
	return plain(operation{write: func(dst []byte, r Record) ([]byte, bool) {
		a := get(r.Info)
		if !a.IsValid() {
			return dst, false
		}
		return a.Addr().Unmap().AppendTo(dst), true
	}})
}

func port(get func(*streaminfo.Info) netip.AddrPort) operator {
	return plain(numeric(func(dst []byte, r Record) ([]byte, bool) {
		a := get(r.Info)
		if !a.IsValid() {
			return dst, false
		}
		return strconv.AppendUint(dst, uint64(a.Port()), 10), true
	}))
}

func upstreamHost(dst []byte, r Record) []byte {
	if r.Info.Upstream == nil {
		return dst
	}
	return append(dst, r.Info.Upstream.Address...)
}

func upstreamHostName(dst []byte, r Record) []byte {
	if r.Info.Upstream != nil && r.Info.Upstream.Hostname != "" {
		return append(dst, r.Info.Upstream.Hostname...)
	}
	return upstreamHost(dst, r)
}

// connected reports that there is, or was, a connection to the endpoint upstream.
func connected(r Record) bool {
	return r.Info.Upstream != nil && (r.Info.UpstreamLocal.IsValid() || strings.HasPrefix(r.Info.Upstream.Address, "/"))
}

// upstreamRemote is the other end of the connection upstream, absent without one.
func upstreamRemote(dst []byte, r Record) []byte {
	if !connected(r) {
		return dst
	}
	return upstreamHost(dst, r)
}

func connectedName(dst []byte, r Record) []byte {
	if !connected(r) {
		return dst
	}
	return upstreamHostName(dst, r)
}

// attempted is what get says of each endpoint that an attempt was connected to, with commas
// between them.
func attempted(get func([]byte, Record) []byte) func([]byte, Record) []byte {
	return func(dst []byte, r Record) []byte {
		if len(r.Info.Attempted) == 0 {
			return get(dst, r)
		}
		info := *r.Info
		r.Info = &info
		for i, e := range info.Attempted {
			if i > 0 {
				dst = append(dst, ',')
			}
			info.Upstream = e
			dst = get(dst, r)
		}
		return dst
	}
}

// hostOf is get without its port and brackets, portOf the port alone.
func hostOf(get func([]byte, Record) []byte) func([]byte, Record) []byte {
	return func(dst []byte, r Record) []byte {
		n := len(dst)
		dst = get(dst, r)
		whole := dst[n:]
		if i := colon(whole); i >= 0 {
			whole = whole[:i]
		}
		if len(whole) > 1 && whole[0] == '[' && whole[len(whole)-1] == ']' {
			whole = whole[1 : len(whole)-1]
		}
		return append(dst[:n], whole...)
	}
}

func portOf(get func([]byte, Record) []byte) func([]byte, Record) []byte {
	return func(dst []byte, r Record) []byte {
		n := len(dst)
		dst = get(dst, r)
		whole := dst[n:]
		i := colon(whole)
		if i < 0 {
			return dst[:n]
		}
		return append(dst[:n], whole[i+1:]...)
	}
}

// colon is where a port begins in "host:port", -1 where there is none.
func colon(hostPort []byte) int {
	for i := len(hostPort) - 1; i >= 0; i-- {
		switch c := hostPort[i]; {
		case c == ':':
			return i
		case c < '0' || c > '9':
			return -1
		}
	}
	return -1
}
