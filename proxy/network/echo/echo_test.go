package echo

import (
	"context"
	"io"
	"net"
	"testing"

	"github.com/lateen-mesh/lateen/proxy/network"
	"github.com/lateen-mesh/lateen/proxy/streaminfo"
	"github.com/lateen-mesh/lateen/proxy/transport"
)

func TestEcho(t *testing.T) {
	b, err := Factory().New(nil, network.Env{})
	if err != nil {
		t.Fatal(err)
	}
	near, far := net.Pipe()
	c := &network.Conn{Conn: transport.NewConn(near), Info: &streaminfo.Info{}}
	done := make(chan struct{})
	go func() { defer close(done); b.Terminal.Serve(context.Background(), c) }()
	go func() { _, _ = io.WriteString(far, "hello") }()
	got := make([]byte, 5)
	if _, err := io.ReadFull(far, got); err != nil || string(got) != "hello" {
		t.Errorf("%q, %v", got, err)
	}
	_ = far.Close()
	<-done
	if c.Info.BytesReceived != 5 || c.Info.BytesSent != 5 {
		t.Errorf("counted %d, %d", c.Info.BytesReceived, c.Info.BytesSent)
	}
}
