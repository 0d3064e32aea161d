package mutual

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"
)

// The ports of every application.
const (
	httpPort = 8080
	grpcPort = 8081
	tcpPort  = 8082
	autoPort = 8083 // HTTP that nobody has declared
)

const patience = 20 * time.Second

// serve runs the application of a member: it answers with what it was told of the client.
func serve(t *testing.T, m *member) {
	t.Helper()
	app := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.Header.Get("Content-Type"), "application/grpc") {
			w.Header().Set("Content-Type", "application/grpc")
			w.Header().Set("Trailer", "Grpc-Status")
			defer w.Header().Set("Grpc-Status", "0")
		}
		w.Header().Set("Told", r.Header.Get("X-Forwarded-Client-Cert"))
		if r.URL.Path == lasting {
			echo(w, r)
			return
		}
		_, _ = fmt.Fprintf(w, "%s", m.name)
	})
	for _, port := range []int{httpPort, grpcPort, autoPort} {
		app := http.Handler(app)
		if port == autoPort { // a proxy that takes it for bytes logs the connection when it ends
			app = closing(app)
		}
		ln, err := m.Listen(fmt.Sprintf("0.0.0.0:%d", port))
		if err != nil {
			t.Fatal(err)
		}
		s := &http.Server{Handler: app, ReadHeaderTimeout: patience, Protocols: &http.Protocols{}}
		s.Protocols.SetHTTP1(true)
		s.Protocols.SetUnencryptedHTTP2(true)
		go func() { _ = s.Serve(ln) }()
		t.Cleanup(func() { _ = s.Close() })
	}
	ln, err := m.Listen(fmt.Sprintf("0.0.0.0:%d", tcpPort))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ln.Close() })
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				for lines := bufio.NewReader(c); ; {
					line, err := lines.ReadString('\n')
					if err != nil {
						return
					}
					_, _ = io.WriteString(c, m.name+" "+line)
				}
			}()
		}
	}()
}

func closing(app http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Connection", "close")
		app.ServeHTTP(w, r)
	})
}

// An outcome is what became of a call.
type outcome struct {
	answered string // by whom; "" if nobody has
	told     string // x-forwarded-client-cert, as the server's application saw it
	problem  string
}

// call has the application of a member call another on a port.
func call(from, to *member, port int) outcome {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	address := net.JoinHostPort(vip(to), strconv.Itoa(port))
	if from.kind == "none" {
		address = net.JoinHostPort(to.Addr().String(), strconv.Itoa(port))
	}
	dial := func() (net.Conn, error) { return from.Dial(&net.Dialer{Timeout: patience}, address) }
	if port == tcpPort {
		return exchange(dial)
	}
	transport := &http.Transport{DisableKeepAlives: port != grpcPort, DialContext: func(context.Context, string, string) (net.Conn, error) { return dial() }, Protocols: &http.Protocols{}}
	defer transport.CloseIdleConnections()
	transport.Protocols.SetHTTP1(port != grpcPort)
	transport.Protocols.SetUnencryptedHTTP2(port == grpcPort)
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, fmt.Sprintf("http://%s:%d/service/Method", to.host(), port), strings.NewReader("\x00\x00\x00\x00\x00"))
	if err != nil {
		return outcome{problem: err.Error()}
	}
	if port == grpcPort {
		r.Header.Set("Content-Type", "application/grpc")
		r.Header.Set("Te", "trailers")
	}
	answer, err := transport.RoundTrip(r)
	if err != nil {
		return outcome{problem: err.Error()}
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	status := answer.Trailer.Get("Grpc-Status")
	if status == "" {
		status = answer.Header.Get("Grpc-Status")
	}
	if err != nil || answer.StatusCode != http.StatusOK || status != "" && status != "0" {
		return outcome{problem: fmt.Sprintf("%s grpc-status=%s %s %s %v", answer.Status, status, answer.Header.Get("Grpc-Message"), body, err)}
	}
	return outcome{answered: string(body), told: answer.Header.Get("Told")}
}

// exchange sends a line and reads one.
func exchange(dial func() (net.Conn, error)) outcome {
	c, err := dial()
	if err != nil {
		return outcome{problem: err.Error()}
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(patience))
	if _, err := io.WriteString(c, "hello\n"); err != nil {
		return outcome{problem: err.Error()}
	}
	line, err := bufio.NewReader(c).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) || line == "" {
		return outcome{problem: fmt.Sprint("no answer: ", err)}
	}
	name, _, _ := strings.Cut(line, " ")
	return outcome{answered: name}
}
