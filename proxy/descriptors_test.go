package proxy

import (
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"
)

func TestConnectionLimitOf(t *testing.T) {
	for _, c := range []struct {
		descriptors uint64
		configured  int64
		want        int64
	}{
		{1 << 20, 0, 523_776},
		{1 << 20, 1<<31 - 1, 523_776}, // the original's bootstrap
		{1 << 20, 100, 100},
		{20_000, 15_000, 15_000},
		{20_000, 19_500, 9_488},
		{1024, 0, 480},
		{64, 0, 16},
		{10, 0, 1},
		{1<<64 - 1, 0, 1<<31 - 1}, // RLIM_INFINITY
	} {
		if got := connectionLimitOf(c.descriptors, c.configured); got != c.want {
			t.Errorf("%d descriptors, %d configured: %d, want %d", c.descriptors, c.configured, got, c.want)
		}
	}
}

// TestFewDescriptors: with few descriptors connections are turned away at the door; each
// of those that are not reaches its upstream.
func TestFewDescriptors(t *testing.T) {
	r, _ := process(t, build(t), tcpBootstrap(t), "sh", "-c", `ulimit -n 64; exec "$0" "$@"`)
	r.eventually("/ready", "LIVE\n")
	addr := r.listener("tcp")
	served, refused := 0, 0
	for range 40 {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(10 * time.Second))
		answer := make([]byte, 1)
		_, werr := io.WriteString(c, "x")
		if _, err := io.ReadFull(c, answer); err != nil || werr != nil {
			refused++
		} else {
			served++
		}
	}
	if served != 16 || refused != 24 {
		t.Errorf("%d served, %d refused", served, refused)
	}
	name := "listener." + strings.ReplaceAll("127.0.0.1:0", ":", "_") + ".downstream_global_cx_overflow"
	r.eventually("/stats?filter=downstream_global", fmt.Sprintf("%s: %d\n", name, refused))
}
