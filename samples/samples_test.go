package samples_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/lateen-mesh/lateen/samples"
	"github.com/lateen-mesh/lateen/samples/testca"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func command(t *testing.T, name string) samples.Command {
	t.Helper()
	for _, c := range samples.Commands() {
		if c.Name == name {
			return c
		}
	}
	t.Fatalf("no application %s", name)
	return samples.Command{}
}

// start runs an application until the test ends and returns the first lines of its
// output, one for each address.
func start(t *testing.T, addresses int, args ...string) (lines []string) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	r, w := io.Pipe()
	done := make(chan error, 1)
	go func() {
		err := command(t, args[0]).Run(ctx, args[1:], w)
		_ = w.CloseWithError(err)
		done <- err
	}()
	out := bufio.NewScanner(r)
	for range addresses {
		if !out.Scan() {
			t.Fatalf("%v: %v", args, out.Err())
		}
		lines = append(lines, out.Text())
	}
	go func() { _, _ = io.Copy(io.Discard, r) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("%v: %v", args, err)
		}
	})
	return lines
}

func address(line string) string { return line[strings.LastIndex(line, " ")+1:] }

func get(t *testing.T, client *http.Client, url string) string {
	t.Helper()
	defer client.CloseIdleConnections()
	answer, err := client.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}

func TestApplicationsServe(t *testing.T) {
	t.Setenv("SERVICE_VERSION", "v2")
	client := &http.Client{Transport: &http.Transport{}}
	for _, tt := range []struct {
		name       string
		args       []string
		path, want string
	}{
		{"httpbin", []string{"httpbin", "--listen", "127.0.0.1:0"}, "/headers", `"User-Agent": "Go-http-client/1.1"`},
		{"httpbin in the other form", []string{"httpbin", "--go", "--listen=127.0.0.1:0"}, "/headers", `"User-Agent": [`},
		{"site", []string{"site", "--title", "News & more", "--listen", "127.0.0.1:0"}, "/", "<title>News &amp; more</title>"},
		{"helloworld", []string{"helloworld", "--listen", "127.0.0.1:0", "--instance", "a"}, "/hello", "Hello version: v2, instance: a\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			line := start(t, 1, tt.args...)[0]
			if !strings.HasPrefix(line, tt.args[0]+": listening on 127.0.0.1:") {
				t.Errorf("says %q", line)
			}
			if got := get(t, client, "http://"+address(line)+tt.path); !strings.Contains(got, tt.want) {
				t.Errorf("%s answers %q, want %q", tt.path, got, tt.want)
			}
		})
	}
}

func TestSeveralAddressesAndTLS(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "ca")
	lines := start(t, 3, "site", "--listen", "127.0.0.1:0,127.0.0.1:0", "--tls-listen", "127.0.0.1:0", "--tls-name", "a.example", "--ca", dir)
	ca, err := testca.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	plain := &http.Client{Transport: &http.Transport{}}
	for _, line := range lines[:2] {
		get(t, plain, "http://"+address(line))
	}
	conn, err := tls.Dial("tcp", address(lines[2]), &tls.Config{RootCAs: ca.Pool(), ServerName: "a.example"})
	if err != nil {
		t.Fatal(err)
	}
	_ = conn.Close()
}

func TestTCPEchoListensAtEveryPort(t *testing.T) {
	for _, line := range start(t, 2, "tcp-echo", "0,0", "one") {
		at, prefix, _ := strings.Cut(strings.TrimPrefix(line, "listening on "), ", ")
		_, port, _ := net.SplitHostPort(at)
		if prefix != "prefix: one" {
			t.Errorf("says %q", line)
		}
		conn, err := net.Dial("tcp", "127.0.0.1:"+port)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.WriteString(conn, "x\n")
		if got, err := bufio.NewReader(conn).ReadString('\n'); got != "one x\n" || err != nil {
			t.Errorf("answer %q, %v", got, err)
		}
		_ = conn.Close()
	}
}

func TestSleepEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := command(t, "sleep").Run(ctx, []string{"infinity"}, io.Discard); err != nil {
		t.Error(err)
	}
}

// A request that runs when the application is ended is answered.
func TestRunningRequestsAreAnswered(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	r, w := io.Pipe()
	done := make(chan error, 1)
	go func() { done <- command(t, "httpbin").Run(ctx, []string{"--listen", "127.0.0.1:0"}, w) }()
	line, err := bufio.NewReader(r).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	conn, err := net.Dial("tcp", address(strings.TrimSpace(line)))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_, _ = io.WriteString(conn, "GET /drip?numbytes=2&duration=0.1 HTTP/1.1\r\nHost: a\r\n\r\n")
	answer, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	cancel() // amid the answer
	body, err := io.ReadAll(answer.Body)
	if err != nil || string(body) != "**" {
		t.Errorf("body %q, %v", body, err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestWrongCommandLinesAreNamed(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	for _, tt := range []struct {
		args       string
		err, hint  string
		usageError bool
	}{
		{"httpbin", "nowhere to listen", "--listen ADDR:PORT", false},
		{"httpbin --lisen :1", "flag provided but not defined: -lisen", "--help", true},
		{"httpbin :80", `unknown argument ":80"`, "--help", true},
		{"httpbin --listen " + taken.Addr().String(), "address already in use", "another program has " + taken.Addr().String(), false},
		{"httpbin --listen 127.0.0.1:99999", "invalid port", "127.0.0.1:8000", false},
		{"httpbin --listen 192.0.2.1:8000", "cannot assign requested address", "an address of this machine", false},
		{"site --tls-listen 127.0.0.1:0", "HTTPS needs a certificate", "--tls-name NAME and --ca DIR", false},
		{"tcp-echo 9000", "ports and prefix are missing", "tcp-echo 9000,9001 hello", true},
		{"tcp-echo 0,99999 hello", "invalid port", "", false},
		{"reviews --listen 127.0.0.1:0 --stars blue", `stars of the colour "blue"`, "none, black or red", true},
		{"sleep", "how long is missing", "sleep infinity", true},
		{"sleep long", `"long" is not a time`, "sleep infinity", true},
	} {
		args := strings.Fields(tt.args)
		err := command(t, args[0]).Run(t.Context(), args[1:], io.Discard)
		failure, ok := errors.AsType[*samples.Error](err)
		if !ok || !strings.Contains(failure.Error(), tt.err) || !strings.Contains(failure.Hint, tt.hint) || failure.Usage != tt.usageError {
			t.Errorf("%s: %v (%+v), want %q, hint %q", tt.args, err, failure, tt.err, tt.hint)
		}
	}
}

func TestHelpShowsTheFlags(t *testing.T) {
	for _, c := range samples.Commands() {
		var out strings.Builder
		if err := c.Run(t.Context(), []string{"--help"}, &out); err != nil || !strings.Contains(out.String(), c.Short) || !strings.Contains(out.String(), "Usage: "+c.Name) {
			t.Errorf("%s --help: %v\n%s", c.Name, err, out.String())
		}
	}
}
