package tcpproxy

import (
	"context"
	"io"
	"time"

	"github.com/lateen-mesh/lateen/proxy/network"
	"github.com/lateen-mesh/lateen/proxy/streaminfo"
	"github.com/lateen-mesh/lateen/proxy/transport"
	"github.com/lateen-mesh/lateen/proxy/upstream"
)

// A greeting is a connection upstream that was made before the client spoke.
type greeting struct {
	transport.Conn
	info  streaminfo.Info // with what was found out about the connection
	stats *upstream.Stats
}

// Greet connects as for a connection that is served.
func (f *filter) Greet(ctx context.Context, info *streaminfo.Info) network.Greeting {
	g := &greeting{info: *info}
	if g.Conn, g.stats = f.connect(ctx, &g.info); g.Conn == nil {
		return nil
	}
	return g
}

// Await waits for the server to speak.
func (g *greeting) Await() error {
	if err := g.WaitReadable(); err != nil {
		return err
	}
	if g.Ended() {
		return io.EOF
	}
	return nil
}

// Hush ends Await.
func (g *greeting) Hush() { _ = g.SetReadDeadline(time.Unix(1, 0)) }

// Close gives the connection up.
func (g *greeting) Close() { _ = g.Conn.Close() }

// connection is the one upstream for c: that of its greeting, else a new one.
func (f *filter) connection(ctx context.Context, c *network.Conn) (transport.Conn, *upstream.Stats) {
	g, ok := c.Greeting.(*greeting)
	if !ok {
		return f.connect(ctx, c.Info)
	}
	c.Greeting = nil
	c.Info.Cluster, c.Info.Upstream, c.Info.UpstreamLocal, c.Info.Attempts = g.info.Cluster, g.info.Upstream, g.info.UpstreamLocal, g.info.Attempts
	c.Info.UpstreamTLS = g.info.UpstreamTLS
	if g.Ended() || g.SetReadDeadline(time.Time{}) != nil { // it has ended meanwhile
		_ = g.Conn.Close()
		return f.connect(ctx, c.Info)
	}
	return g.Conn, g.stats
}
