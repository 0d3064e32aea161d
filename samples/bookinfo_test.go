package samples_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
)

// shop runs the four services and returns the URL of the page.
func shop(t *testing.T, reviews ...string) string {
	t.Helper()
	at := func(args ...string) string {
		return "http://" + address(start(t, 1, append(args, "--listen", "127.0.0.1:0")...)[0])
	}
	stars := at("ratings")
	readers := at(append([]string{"reviews", "--ratings", stars}, reviews...)...)
	return at("productpage", "--details", at("details"), "--reviews", readers, "--ratings", stars)
}

// The versions of reviews are made by the environment of their images, or by flags.
func TestBookinfo(t *testing.T) {
	for _, tt := range []struct {
		name        string
		environment map[string]string
		flags       []string
		want        string // color, or "" for no stars
	}{
		{"v1", map[string]string{"ENABLE_RATINGS": "false", "STAR_COLOR": "black"}, nil, ""},
		{"v2", map[string]string{"ENABLE_RATINGS": "true"}, nil, "black"},
		{"v3", map[string]string{"ENABLE_RATINGS": "true", "STAR_COLOR": "red"}, nil, "red"},
		{"told by a flag", map[string]string{"ENABLE_RATINGS": "true", "STAR_COLOR": "red"}, []string{"--stars", "black"}, "black"},
		{"told to have none", map[string]string{"ENABLE_RATINGS": "true"}, []string{"--stars", "none"}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for name, value := range tt.environment {
				t.Setenv(name, value)
			}
			client := &http.Client{Transport: &http.Transport{}}
			page := get(t, client, shop(t, tt.flags...)+"/productpage")
			for _, color := range []string{"black", "red"} {
				if got := strings.Contains(page, fmt.Sprintf("<font color=%q>", color)); got != (color == tt.want) {
					t.Errorf("stars are %s: %v\n%s", color, got, page)
				}
			}
			if !strings.Contains(page, "Reviewer2") {
				t.Errorf("no reviews in\n%s", page)
			}
		})
	}
}

// Services are found by the names that manifests and Kubernetes put into the environment.
func TestBookinfoFindsItsServices(t *testing.T) {
	host, port, _ := net.SplitHostPort(address(start(t, 1, "ratings", "--listen", "127.0.0.1:0")[0]))
	t.Setenv("RATINGS_HOSTNAME", host)
	t.Setenv("RATINGS_SERVICE_PORT", port)
	page := "http://" + address(start(t, 1, "productpage", "--listen", "127.0.0.1:0")[0])
	client := &http.Client{Transport: &http.Transport{}}
	if got := get(t, client, page+"/api/v1/products/0/ratings"); got != `{"id":0,"ratings":{"Reviewer1":5,"Reviewer2":4}}` {
		t.Errorf("ratings are %s", got)
	}
}

// The headers of answers come in the order that people know, on every request of a
// connection, whatever the method.
func TestHeadersAreInOrder(t *testing.T) {
	httpbin := func(flags ...string) string {
		return "http://" + address(start(t, 1, append([]string{"httpbin", "--listen", "127.0.0.1:0"}, flags...)...)[0])
	}
	for _, tt := range []struct {
		name, url string
		answers   [][2]string // of a request, the status and the names of headers
	}{
		{"Bookinfo", shop(t), [][2]string{
			{"GET /productpage", "200 Content-Type Content-Length Server Date"},
			{"HEAD /productpage", "200 Content-Type Content-Length Server Date"},
			{"GET /api/v1/products", "200 Content-Type Content-Length Server Date"},
			{"GET /logout", "302 Content-Type Content-Length Server Date Location Set-Cookie"},
			{"GET /static/bookinfo.css", "200 Content-Type Content-Length Server Date Accept-Ranges"},
		}},
		{"httpbin.org", httpbin(), [][2]string{
			{"GET /headers", "200 Date Content-Type Content-Length Server Access-Control-Allow-Origin Access-Control-Allow-Credentials"},
		}},
		{"httpbin's image", httpbin("--image"), [][2]string{
			{"GET /headers", "200 Server Date Content-Type Content-Length Access-Control-Allow-Origin Access-Control-Allow-Credentials"},
			{"GET /status/200", "200 Server Date Content-Type Content-Length Access-Control-Allow-Origin Access-Control-Allow-Credentials"},
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			conn, err := net.Dial("tcp", strings.TrimPrefix(tt.url, "http://"))
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			in := bufio.NewReader(conn)
			for _, answer := range tt.answers {
				_, _ = io.WriteString(conn, answer[0]+" HTTP/1.1\r\nHost: a\r\n\r\n")
				if got := headers(t, in, strings.HasPrefix(answer[0], "HEAD")); got != answer[1] {
					t.Errorf("%s: %s, want %s", answer[0], got, answer[1])
				}
			}
		})
	}
}

// headers reads an answer and returns its status and the names of its headers.
func headers(t *testing.T, in *bufio.Reader, head bool) string {
	t.Helper()
	var b strings.Builder
	status, err := in.ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	b.WriteString(strings.Fields(status)[1])
	length, line := int64(0), ""
	for line, err = in.ReadString('\n'); err == nil && line != "\r\n"; line, err = in.ReadString('\n') {
		name, value, _ := strings.Cut(line, ":")
		b.WriteString(" " + name)
		if name == "Content-Length" {
			_, _ = fmt.Sscan(value, &length)
		}
	}
	if err == nil && !head {
		_, err = io.CopyN(io.Discard, in, length)
	}
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// A service that is to end at once leaves requests without answer.
func TestAbruptEnd(t *testing.T) {
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	r, w := io.Pipe()
	done := make(chan error, 1)
	go func() {
		done <- command(t, "productpage").Run(ctx, []string{"--listen", "127.0.0.1:0", "--abrupt", "--linger", "1h", "--details", "http://" + silent.Addr().String()}, w)
	}()
	line, err := bufio.NewReader(r).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	conn, err := net.Dial("tcp", address(strings.TrimSpace(line)))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_, _ = io.WriteString(conn, "GET /productpage HTTP/1.1\r\nHost: a\r\n\r\n")
	asked, err := silent.Accept() // the request runs
	if err != nil {
		t.Fatal(err)
	}
	defer asked.Close()
	go func() { _, _ = io.Copy(io.Discard, r) }() // it may say that details did not answer
	cancel()
	if answer, _ := io.ReadAll(conn); len(answer) != 0 {
		t.Errorf("answered %q", answer)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
	_ = w.Close()
}

// A service says why another one has not answered.
func TestBookinfoSaysWhatFails(t *testing.T) {
	other := address(start(t, 1, "details", "--listen", "127.0.0.1:0")[0]) // which has no ratings
	ctx, cancel := context.WithCancel(t.Context())
	r, w := io.Pipe()
	done := make(chan error, 1)
	go func() {
		done <- command(t, "productpage").Run(ctx, []string{"--listen", "127.0.0.1:0", "--ratings", "http://" + other}, w)
	}()
	out := bufio.NewReader(r)
	line, err := out.ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	said := make(chan string, 1)
	go func() {
		line, _ := out.ReadString('\n')
		said <- line
	}()
	client := &http.Client{Transport: &http.Transport{}}
	get(t, client, "http://"+address(strings.TrimSpace(line))+"/api/v1/products/0/ratings")
	if got := <-said; !strings.HasPrefix(got, "productpage: http://127.0.0.1:") || !strings.HasSuffix(got, "/ratings/0 answers with status 404\n") {
		t.Errorf("says %q", got)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// details v2 is made by its image's environment, or by a flag: it asks a book service.
func TestDetailsAskABookService(t *testing.T) {
	t.Setenv("ENABLE_EXTERNAL_BOOK_SERVICE", "true")
	none := address(start(t, 1, "details", "--books", "", "--listen", "127.0.0.1:0")[0]) // it has no volumes
	client := &http.Client{Transport: &http.Transport{}}
	for books, want := range map[string]string{
		"":               `{"id":0,"author":"William Shakespeare",`,
		"http://" + none: `{"error":"the book service does not answer"}`,
	} {
		at := address(start(t, 1, "details", "--books", books, "--listen", "127.0.0.1:0")[0])
		if got := get(t, client, "http://"+at+"/details/0"); !strings.HasPrefix(got, want) {
			t.Errorf("with %q: %s", books, got)
		}
	}
	var help strings.Builder
	if err := command(t, "details").Run(t.Context(), []string{"--help"}, &help); err != nil || !strings.Contains(help.String(), `(default "https://www.googleapis.com")`) {
		t.Errorf("%v\n%s", err, help.String())
	}
}
