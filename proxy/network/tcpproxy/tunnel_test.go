package tcpproxy

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/lateen-mesh/lateen/proxy/streaminfo"
)

// terminator answers the head of a tunnel with status and then echoes.
func (f *fixture) terminator(status int, heads chan<- string) string {
	return f.backend(func(c *net.TCPConn) {
		r := bufio.NewReader(c)
		var head strings.Builder
		for {
			line, err := r.ReadString('\n')
			if err != nil {
				return
			}
			head.WriteString(line)
			if line == "\r\n" {
				break
			}
		}
		heads <- head.String()
		if strings.HasPrefix(head.String(), "POST") {
			echoChunks(c, r, head.String())
			return
		}
		if status == 200 {
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nx-tunnel: yes\r\n\r\nahead ")
			_, _ = io.Copy(c, r)
			return
		}
		_, _ = fmt.Fprintf(c, "HTTP/1.1 %d No\r\ncontent-length: 0\r\n\r\n", status)
	})
}

// echoChunks answers a POST with its body, as a server of the standard library would.
func echoChunks(c net.Conn, r *bufio.Reader, head string) {
	q, err := http.ReadRequest(bufio.NewReader(io.MultiReader(strings.NewReader(head), r)))
	if err != nil {
		return
	}
	_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
	buf := make([]byte, 1024)
	for {
		n, err := q.Body.Read(buf)
		if n > 0 {
			_, _ = fmt.Fprintf(c, "%x\r\n%s\r\n", n, buf[:n])
		}
		if err != nil {
			_, _ = io.WriteString(c, "0\r\n\r\n")
			return
		}
	}
}

func TestTunnel(t *testing.T) {
	const form = `{"stat_prefix": "p", "cluster": "c", "max_connect_attempts": 2, "tunneling_config": {"hostname": "far.test:443", %s
		"headers_to_add": [{"header": {"key": "X-One", "value": "1"}}, {"header": {"key": "x-none", "value": ""}}]}}`
	t.Run("CONNECT", func(t *testing.T) {
		f, heads := newFixture(t), make(chan string, 10)
		f.cluster("c", "", f.terminator(200, heads))
		c := f.dial(f.serve(fmt.Sprintf(form, "")))
		say(t, c, "hello")
		got := make([]byte, len("ahead hello"))
		if _, err := io.ReadFull(c, got); err != nil || string(got) != "ahead hello" {
			t.Errorf("%q, %v", got, err)
		}
		if head := <-heads; head != "CONNECT far.test:443 HTTP/1.1\r\nhost: far.test:443\r\nx-one: 1\r\n\r\n" {
			t.Errorf("%q", head)
		}
		_ = c.Close()
		if l := f.line(); !strings.HasPrefix(l, `- "" 5 11`) {
			t.Error(l)
		}
	})
	t.Run("POST", func(t *testing.T) {
		f, heads := newFixture(t), make(chan string, 10)
		f.cluster("c", "", f.terminator(200, heads))
		c := f.dial(f.serve(fmt.Sprintf(form, `"use_post": true, "post_path": "/t",`)))
		say(t, c, "hello")
		_ = c.CloseWrite()
		if got := read(t, c); got != "hello" {
			t.Errorf("%q", got)
		}
		if head := <-heads; !strings.HasPrefix(head, "POST /t HTTP/1.1\r\nhost: far.test:443\r\n") || !strings.Contains(head, "transfer-encoding: chunked") {
			t.Errorf("%q", head)
		}
		f.line()
	})
	t.Run("refused twice", func(t *testing.T) {
		f, heads := newFixture(t), make(chan string, 10)
		f.cluster("c", "", f.terminator(403, heads))
		c := f.dial(f.serve(fmt.Sprintf(form, "")))
		if got := read(t, c); got != "" {
			t.Errorf("%q", got)
		}
		if l := f.line(); !strings.HasPrefix(l, `UF,URX "" 0 0`) || !strings.Contains(l, "attempts=2") {
			t.Error(l)
		}
	})
}

func TestLinesBeforeTheEnd(t *testing.T) {
	f := newFixture(t)
	f.cluster("c", "", f.backend(func(c *net.TCPConn) { _, _ = io.Copy(c, c) }))
	c := f.dial(f.serve(`{"stat_prefix": "p", "cluster": "c",
		"access_log_options": {"flush_access_log_on_start": true, "flush_access_log_on_connected": true, "access_log_flush_interval": "0.05s"}}`))
	say(t, c, "hello")
	if _, err := io.ReadFull(c, make([]byte, 5)); err != nil {
		t.Fatal(err)
	}
	if l := f.line(); !strings.Contains(l, "attempts=0") {
		t.Error("at the start:", l)
	}
	if l := f.line(); !strings.HasPrefix(l, `- "" 0 0`) || !strings.Contains(l, "attempts=1") {
		t.Error("connected:", l)
	}
	for l := f.line(); !strings.HasPrefix(l, `- "" 5 5`); l = f.line() { // periodically, until the bytes are told
	}
	_ = c.Close()
}

func TestBackOffIsBounded(t *testing.T) {
	b := backOff{base: time.Millisecond, most: 4 * time.Millisecond}
	for n := 1; n < 200; n++ {
		if n < 5 && !b.wait(t.Context(), n) {
			t.Fatal("the context has not ended")
		}
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if (backOff{base: time.Hour, most: time.Hour}).wait(ended, 1<<30) {
		t.Error("waited on")
	}
}

func TestClusterOfAnEarlierFilter(t *testing.T) {
	f := newFixture(t)
	flt, err := f.compile(simple)
	if err != nil {
		t.Fatal(err)
	}
	info := &streaminfo.Info{}
	if got := flt.choose(info).name; got != "c" {
		t.Error(got)
	}
	info.SetState(ClusterKey, "other")
	if got := flt.choose(info).name; got != "other" {
		t.Error(got)
	}
}

func TestMaximalDuration(t *testing.T) {
	f := newFixture(t)
	f.cluster("c", "", f.backend(func(c *net.TCPConn) { _, _ = io.Copy(c, c) }))
	c := f.dial(f.serve(`{"stat_prefix": "p", "cluster": "c", "max_downstream_connection_duration": "0.05s"}`))
	read(t, c)
	if l := f.line(); !strings.HasPrefix(l, "DT ") {
		t.Error(l)
	}
	if n := counter(f, "tcp.p.max_downstream_connection_duration"); n != 1 {
		t.Error(n)
	}
}

// TestMuchBothWays: bytes that the kernel moves are whole and counted, also when the
// pace changes on the way.
func TestMuchBothWays(t *testing.T) {
	f := newFixture(t)
	f.cluster("c", "", f.backend(func(c *net.TCPConn) { _, _ = io.Copy(c, c); _ = c.CloseWrite() }))
	c := f.dial(f.serve(simple))
	const size = 16 << 20
	go func() {
		chunk := make([]byte, 1<<20)
		for i := range chunk {
			chunk[i] = byte(i * 7)
		}
		for range size >> 20 {
			_, _ = c.Write(chunk)
			_, _ = c.Write([]byte{1}) // small ones give the pipe back
		}
		_ = c.CloseWrite()
	}()
	got, at := 0, 0
	buf := make([]byte, 64<<10)
	for {
		n, err := c.Read(buf)
		for _, b := range buf[:n] {
			want := byte(at * 7)
			if at == 1<<20 {
				want = 1
			}
			if b != want {
				t.Fatalf("byte %d is %d, want %d", got, b, want)
			}
			got++
			if at++; at > 1<<20 {
				at = 0
			}
		}
		if err != nil {
			break
		}
	}
	if want := size + size>>20; got != want {
		t.Errorf("%d bytes, want %d", got, want)
	}
	if l, want := f.line(), fmt.Sprintf(`- "" %d %d`, got, got); !strings.HasPrefix(l, want) {
		t.Error(l)
	}
}
