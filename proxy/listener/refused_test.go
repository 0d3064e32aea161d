package listener

import (
	"bytes"
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lateen-mesh/lateen/proxy/streaminfo"
)

// TestRefusedHandshakes: strangers are written down, one a second of however many there are.
func TestRefusedHandshakes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var said bytes.Buffer
		s := &Set{opts: Options{Log: slog.New(slog.NewTextHandler(&said, nil))}}
		cn := &conn{config: &Config{name: "virtualInbound"}, info: streaminfo.Info{DownstreamDirectRemote: netip.MustParseAddrPort("10.0.0.7:4711")}}
		for range 100 {
			s.refused(cn, "unknown authority")
		}
		time.Sleep(2 * time.Second)
		s.refused(cn, "unknown authority")
		text := said.String()
		if strings.Count(text, "handshake refused") != 2 || !strings.Contains(text, "listener=virtualInbound peer=10.0.0.7:4711 reason=\"unknown authority\" others_meanwhile=99") {
			t.Errorf("it says:\n%s", text)
		}
	})
}
