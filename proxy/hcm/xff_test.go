package hcm

import (
	"net/netip"
	"testing"

	"github.com/lateen-mesh/lateen/proxy/http"
)

func TestAppendXFF(t *testing.T) {
	e := &edge{local: netip.MustParseAddr("192.0.2.2")}
	for peer, want := range map[string]string{
		"127.0.0.1": "192.0.2.2", "::1": "192.0.2.2", "127.0.0.2": "127.0.0.2", "10.0.0.1": "10.0.0.1",
	} {
		s := &http.Stream{}
		s.Info.DownstreamDirectRemote = netip.AddrPortFrom(netip.MustParseAddr(peer), 1)
		e.appendXFF(s)
		if got := string(s.Request.Headers.Get("x-forwarded-for")); got != want {
			t.Errorf("%s: %s, want %s", peer, got, want)
		}
	}
}
