package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	proxyhttp "github.com/lateen-mesh/lateen/proxy/http"
	codec "github.com/lateen-mesh/lateen/proxy/http2"
	"github.com/lateen-mesh/lateen/proxy/transport"
)

// work is what a generator prints: how much it did, and where it measures time, the time
// in ms below which 99 of 100 answers came.
type work struct {
	Units float64 `json:"units"`
	P99   float64 `json:"p99,omitempty"`
}

// generateLoad is the benchmark's own program when it is started with -generate.
func generateLoad(ctx context.Context, name string, args []string) error {
	dir, args := args[0], args[1:]
	if name == "grpc" {
		return serveGRPC(args[0])
	}
	if name == "hold" {
		return hold(dir, args[0], args[1], args[2])
	}
	length, err := time.ParseDuration(args[1])
	if err != nil {
		return err
	}
	ctx, stop := context.WithTimeout(ctx, length)
	defer stop()
	var did work
	switch name {
	case "bulk":
		did, err = bulk(ctx, args[0])
	case "handshakes":
		did, err = handshakes(ctx, dir, args[0])
	case "paced":
		did, err = pace(ctx, args[0], args[2])
	default:
		return fmt.Errorf("-generate %q: no such generator", name)
	}
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(did)
}

// bulk sends bytes through a proxy to a sink of its own, in GB.
func bulk(ctx context.Context, port string) (work, error) {
	sink, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", sinkPort))
	if err != nil {
		return work{}, err
	}
	defer sink.Close()
	var got int64
	received := make(chan struct{})
	go func() {
		defer close(received)
		c, err := sink.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		b := make([]byte, 256<<10)
		for {
			n, err := c.Read(b)
			got += int64(n)
			if err != nil {
				return
			}
		}
	}()
	c, err := net.Dial("tcp", "127.0.0.1:"+port)
	if err != nil {
		return work{}, err
	}
	b := make([]byte, 256<<10)
	for ctx.Err() == nil {
		if _, err := c.Write(b); err != nil {
			return work{}, err
		}
	}
	_ = c.Close()
	<-received
	return work{Units: float64(got) / 1e9}, nil
}

// request is what the generators ask.
func request() []byte {
	return []byte("GET /svc2/items?id=42 HTTP/1.1\r\n" + strings.Join(headers, "\r\n") + "\r\n\r\n")
}

// answer reads one answer, which must be 200.
func answer(r *bufio.Reader) error {
	resp, err := http.ReadResponse(r, nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != 200 {
		return fmt.Errorf("status %d", resp.StatusCode)
	}
	_, err = io.Copy(io.Discard, resp.Body)
	return err
}

// clientTLS is the configuration of a client with a certificate. The curves are those that
// every peer has, so that all do the same work.
func clientTLS(dir string) (*tls.Config, error) {
	cert, err := tls.LoadX509KeyPair(filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem"))
	if err != nil {
		return nil, err
	}
	ca, err := os.ReadFile(filepath.Join(dir, "ca.pem"))
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	return &tls.Config{Certificates: []tls.Certificate{cert}, RootCAs: roots, ServerName: serverName, MinVersion: tls.VersionTLS13,
		CurvePreferences: []tls.CurveID{tls.X25519}, SessionTicketsDisabled: true}, nil
}

// handshakes makes connections with certificates on both sides, with a request on each.
func handshakes(ctx context.Context, dir, port string) (work, error) {
	config, err := clientTLS(dir)
	if err != nil {
		return work{}, err
	}
	var did work
	ask := request()
	for ctx.Err() == nil {
		c, err := tls.Dial("tcp", "127.0.0.1:"+port, config)
		if err != nil {
			return did, err
		}
		if _, err := c.Write(ask); err != nil {
			return did, err
		}
		if err := answer(bufio.NewReader(c)); err != nil {
			return did, err
		}
		_ = c.Close()
		did.Units++
	}
	return did, nil
}

// pace asks at a rate, whether answers come or not, and measures from when a request was due.
func pace(ctx context.Context, port, rate string) (work, error) {
	perSecond, err := strconv.Atoi(rate)
	if err != nil {
		return work{}, err
	}
	var mu sync.Mutex
	var all []time.Duration
	var failed error
	var group sync.WaitGroup
	gap := time.Second * connections / time.Duration(max(perSecond, 1))
	begin := time.Now()
	for i := range connections {
		group.Go(func() {
			times, err := paceOne(ctx, port, begin.Add(gap*time.Duration(i)/connections), gap)
			mu.Lock()
			defer mu.Unlock()
			all = append(all, times...)
			failed = errors.Join(failed, err)
		})
	}
	group.Wait()
	if failed != nil || len(all) == 0 {
		return work{}, errors.Join(failed, errors.New("no usable answers"))
	}
	slices.Sort(all)
	return work{Units: float64(len(all)), P99: float64(all[len(all)*99/100]) / 1e6}, nil
}

func paceOne(ctx context.Context, port string, due time.Time, gap time.Duration) ([]time.Duration, error) {
	c, err := net.Dial("tcp", "127.0.0.1:"+port)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	r := bufio.NewReader(c)
	ask := request()
	var times []time.Duration
	for ; ctx.Err() == nil; due = due.Add(gap) {
		time.Sleep(time.Until(due))
		if _, err := c.Write(ask); err != nil {
			return times, err
		}
		if err := answer(r); err != nil {
			return times, err
		}
		times = append(times, time.Since(due))
	}
	return times, nil
}

// hold opens connections, asks once on each, and keeps them until its input ends.
func hold(dir, port, scheme, count string) error {
	n, err := strconv.Atoi(count)
	if err != nil {
		return err
	}
	if err := moreDescriptors(); err != nil {
		return err
	}
	config, err := clientTLS(dir)
	if err != nil {
		return err
	}
	ask := request()
	conns := make([]net.Conn, 0, n)
	for range n {
		c, err := net.Dial("tcp", "127.0.0.1:"+port)
		if err != nil {
			return err
		}
		if scheme == "tls" {
			c = tls.Client(c, config)
		}
		if _, err := c.Write(ask); err != nil {
			return err
		}
		if err := answer(bufio.NewReaderSize(c, 512)); err != nil {
			return err
		}
		conns = append(conns, c)
	}
	fmt.Println("open")
	_, err = io.Copy(io.Discard, os.Stdin)
	for _, c := range conns {
		_ = c.Close()
	}
	return err
}

// moreDescriptors takes as many as the machine allows.
func moreDescriptors() error {
	var limit syscall.Rlimit
	err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit)
	if err == nil {
		limit.Cur = limit.Max
		err = syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit)
	}
	if err != nil {
		return fmt.Errorf("descriptors: %w", err)
	}
	return nil
}

// serveGRPC is a backend of unary calls: it answers a message with a message. It is made
// of the proxy's own codec, which gathers what it writes: a backend that costs more than
// the proxies would measure itself.
func serveGRPC(port string) error {
	l, err := net.Listen("tcp", "127.0.0.1:"+port)
	if err != nil {
		return err
	}
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		go func() { _ = codec.NewServer(transport.NewConn(c), nil, codec.ServerOptions{}, answerCall).Serve() }()
	}
}

var (
	grpcMessage  = append([]byte{0, 0, 0, 0, 100}, make([]byte, 100)...)
	grpcHead     = []proxyhttp.Field{{Name: []byte("content-type"), Value: []byte("application/grpc")}}
	grpcTrailers = []proxyhttp.Field{{Name: []byte("grpc-status"), Value: []byte("0")}}
)

func answerCall(s *codec.ServerStream) {
	for {
		if _, err := s.Next(); err != nil {
			break
		}
	}
	_ = s.WriteHead(&proxyhttp.Response{Status: 200, Headers: proxyhttp.Headers{Fields: grpcHead}, ContentLength: -1}, false)
	_ = s.WriteBody(grpcMessage, false)
	_ = s.WriteTrailers(&proxyhttp.Headers{Fields: grpcTrailers})
	_ = s.Flush() // a client that has gone is counted by the benchmark
}
