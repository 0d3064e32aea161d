package pages

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"

	"go.uber.org/goleak"
)

// net/http gives a client half a second to read the answer to a request that it has not read.
func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("net/http.(*conn).closeWriteAndWait"))
}

// A record is a log that a test reads.
type record struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (r *record) Write(b []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.text.Write(b)
}

func (r *record) String() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.text.String()
}

// serve runs a server of New and returns its address and log.
func serve(t *testing.T, h http.HandlerFunc) (string, *record) {
	t.Helper()
	said := &record{}
	s := New(h, slog.New(slog.NewTextHandler(said, nil)))
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { defer close(ended); _ = s.Serve(l) }()
	t.Cleanup(func() { _ = s.Close(); <-ended })
	return l.Addr().String(), said
}

func dial(t *testing.T, at string) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", at)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// ask sends one request on a connection that stays open, and returns the answer's status.
func ask(t *testing.T, c net.Conn, request string) int {
	t.Helper()
	if _, err := io.WriteString(c, request); err != nil {
		t.Fatal(err)
	}
	answer, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	_, _ = io.Copy(io.Discard, answer.Body)
	return answer.StatusCode
}

const plain = "GET / HTTP/1.1\r\nHost: x\r\n\r\n"

// TestCrowd: connections that send nothing, or a head that never ends, keep nobody from being
// answered, and the oldest of them are closed.
func TestCrowd(t *testing.T) {
	for name, begin := range map[string]string{"silent": "", "slow head": "GET / HT", "idle": plain} {
		t.Run(name, func(t *testing.T) {
			at, said := serve(t, func(http.ResponseWriter, *http.Request) {})
			var held []net.Conn
			for range MaxConnections + 10 {
				c := dial(t, at)
				held = append(held, c)
				if begin == plain {
					ask(t, c, plain)
				} else if _, err := io.WriteString(c, begin); err != nil {
					t.Fatal(err)
				}
			}
			if status := ask(t, dial(t, at), plain); status != http.StatusOK {
				t.Errorf("who comes last gets %d", status)
			}
			for _, c := range held[:10] {
				if _, err := io.Copy(io.Discard, c); err != nil && !strings.Contains(err.Error(), "reset") {
					t.Errorf("one of the first: %v, want it closed", err)
				}
			}
			if !strings.Contains(said.String(), "too many connections") {
				t.Errorf("the log says %q", said)
			}
		})
	}
}

// TestCrowdOfAnswers: where all are being answered, who comes is closed, and they are not.
func TestCrowdOfAnswers(t *testing.T) {
	hold, entered := make(chan struct{}), make(chan struct{}, MaxConnections)
	at, _ := serve(t, func(http.ResponseWriter, *http.Request) { entered <- struct{}{}; <-hold })
	statuses := make(chan string, MaxConnections)
	for range MaxConnections {
		c := dial(t, at)
		go func() {
			_, _ = io.WriteString(c, plain)
			line, _ := bufio.NewReader(c).ReadString('\n')
			statuses <- line
		}()
		<-entered
	}
	if n, err := io.Copy(io.Discard, dial(t, at)); n != 0 {
		t.Errorf("one too many gets %d bytes, %v", n, err)
	}
	close(hold)
	for range MaxConnections {
		if line := <-statuses; !strings.Contains(line, "200") {
			t.Fatalf("one that was being answered gets %q", line)
		}
	}
}

// TestLongHead: a head beyond the bound is refused before it is stored.
func TestLongHead(t *testing.T) {
	at, _ := serve(t, func(http.ResponseWriter, *http.Request) {})
	c := dial(t, at)
	request := "GET / HTTP/1.1\r\nHost: x\r\nLong: " + strings.Repeat("x", 2*maxHead) + "\r\n\r\n"
	go func() { _, _ = io.WriteString(c, request) }()
	line, err := bufio.NewReader(c).ReadString('\n')
	if err != nil || !strings.Contains(line, "431") {
		t.Errorf("%q, %v", line, err)
	}
}

// TestTimes: a server waits for nothing forever.
func TestTimes(t *testing.T) {
	s := New(http.NotFoundHandler(), slog.Default())
	for name, d := range map[string]int64{"head": int64(s.ReadHeaderTimeout), "answer": int64(s.WriteTimeout), "idle": int64(s.IdleTimeout)} {
		if d <= 0 {
			t.Errorf("%s: no bound", name)
		}
	}
}

// TestForeignPages: a browser is not made to change something by a page of another site.
func TestForeignPages(t *testing.T) {
	at, said := serve(t, func(http.ResponseWriter, *http.Request) {})
	request := func(method, origin string) string {
		return fmt.Sprintf("%s /quitquitquit HTTP/1.1\r\nHost: localhost:15000\r\n%sContent-Length: 0\r\n\r\n", method, origin)
	}
	for _, c := range []struct {
		name, request string
		want          int
	}{
		{"a program", request("POST", ""), 200},
		{"its own page", request("POST", "Origin: http://localhost:15000\r\n"), 200},
		{"a page of another site", request("POST", "Origin: http://evil.example\r\n"), 403},
		{"a page of another site, said by the browser", request("POST", "Sec-Fetch-Site: cross-site\r\n"), 403},
	} {
		if got := ask(t, dial(t, at), c.request); got != c.want {
			t.Errorf("%s: %d, want %d", c.name, got, c.want)
		}
	}
	if !strings.Contains(said.String(), "page refused") {
		t.Errorf("the log says %q", said)
	}
}

func TestIsInside(t *testing.T) {
	for address, want := range map[string]bool{
		"127.0.0.1:1": true, "[::1]:1": true, "[::ffff:127.0.0.1]:1": true, "127.0.0.53:1": true,
		"@": true, "": true, // unix sockets
		"127.0.0.6:1": false, "[::6]:1": false, "[::ffff:127.0.0.6]:1": false, // handed on by a sidecar
		"10.0.0.1:1": false, "[fe80::1%eth0]:1": false, "[2001:db8::1]:1": false, "0.0.0.0:1": false, "localhost:1": false,
	} {
		if got := IsInside(address); got != want {
			t.Errorf("%q: %v", address, got)
		}
	}
}
