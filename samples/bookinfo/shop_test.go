package bookinfo_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/lateen-mesh/lateen/samples/bookinfo"
	"github.com/lateen-mesh/lateen/samples/bookinfo/details"
	"github.com/lateen-mesh/lateen/samples/bookinfo/productpage"
	"github.com/lateen-mesh/lateen/samples/bookinfo/ratings"
	"github.com/lateen-mesh/lateen/samples/bookinfo/reviews"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A street is where services have their addresses: HTTP over pipes, so that the time
// of a test bubble passes only while all wait.
type street struct {
	services map[string]http.Handler // by host and port
	servers  []*http.Server
}

func (s *street) dial(_ context.Context, _, address string) (net.Conn, error) {
	handler := s.services[address]
	if handler == nil {
		return nil, errors.New("connection refused")
	}
	ours, theirs := net.Pipe()
	server := &http.Server{Handler: handler, ReadHeaderTimeout: time.Minute}
	s.servers = append(s.servers, server)
	go func() { _ = server.Serve(&door{conn: theirs}) }()
	return ours, nil
}

func (s *street) close() {
	for _, server := range s.servers {
		_ = server.Close()
	}
}

// A door is a listener that lets one connection in.
type door struct{ conn net.Conn }

func (d *door) Accept() (conn net.Conn, err error) {
	if d.conn == nil {
		return nil, http.ErrServerClosed
	}
	conn, d.conn = d.conn, nil
	return conn, nil
}
func (d *door) Close() error   { return nil }
func (d *door) Addr() net.Addr { return &net.TCPAddr{} }

// late is a service that lets everybody wait.
func late(d time.Duration, service http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-time.After(d):
			service.ServeHTTP(w, r)
		case <-r.Context().Done():
		}
	})
}

// failing is one that answers with a status alone.
func failing(status int) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(status) })
}

// hangUp is one that ends the connection.
func hangUp() http.Handler {
	return http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
}

const (
	noDetails = "Error fetching product details!|Sorry, product details are currently unavailable for this book."
	noReviews = "Error fetching product reviews!|Sorry, product reviews are currently unavailable for this book."
	noRatings = "Ratings service is currently unavailable"
	red       = `<font color="red">`
	black     = `<font color="black">`
	book      = "Book Details|William Shakespeare|1595|paperback|200|123-1234567890"
	readers   = "Book Reviews|Reviewer1|Reviewer2|Reviews served by: <u>pod-1</u>"
)

// What the page shows and when it is there, while others are slow or fail. The
// seconds are those that fault injection in a mesh is explained with.
func TestPage(t *testing.T) {
	stars := ratings.New()
	for _, tt := range []struct {
		name             string
		version          string // of reviews, by its stars
		details, ratings http.Handler
		reviews          func(http.Handler) http.Handler
		show, hide       string // texts, between bars
		after            time.Duration
	}{
		{name: "v1 has no stars", show: book + "|" + readers, hide: "<font|glyphicon|" + noReviews + "|" + noDetails},
		{name: "v1 does not ask for ratings", ratings: failing(500), show: readers, hide: "<font|" + noRatings},
		{name: "v2 has black stars", version: "black", show: book + "|" + readers + "|" + black, hide: red + "|" + noRatings},
		{name: "v3 has red stars", version: "red", show: book + "|" + readers + "|" + red, hide: black + "|" + noRatings},
		{name: "ratings fail", version: "black", ratings: failing(500), show: book + "|" + readers + "|" + noRatings, hide: "<font|" + noReviews},
		{name: "ratings hang up", version: "red", ratings: hangUp(), show: readers + "|" + noRatings, hide: "<font"},
		{name: "details fail", details: failing(500), show: noDetails + "|" + readers, hide: "Book Details"},
		{name: "details are late", details: late(4*time.Second, details.New()), show: noDetails + "|" + readers, after: 3 * time.Second},
		{name: "details are a little late", details: late(2*time.Second, details.New()), show: book, hide: noDetails, after: 2 * time.Second},
		{name: "reviews fail", reviews: func(http.Handler) http.Handler { return failing(503) }, show: book + "|" + noReviews, hide: "Book Reviews"},
		{name: "reviews are no JSON", reviews: func(http.Handler) http.Handler { return failing(200) }, show: noReviews},
		{name: "reviews are late", reviews: func(h http.Handler) http.Handler { return late(7*time.Second, h) }, show: book + "|" + noReviews, after: 6 * time.Second},
		{name: "a proxy gives up on reviews", reviews: func(http.Handler) http.Handler { return late(time.Second/2, failing(504)) }, show: noReviews, after: time.Second},
		{name: "ratings are seven seconds late: v2 waits, the page does not", version: "black", ratings: late(7*time.Second, stars), show: book + "|" + noReviews, hide: "<font", after: 6 * time.Second},
		{name: "ratings are two seconds late", version: "black", ratings: late(2*time.Second, stars), show: readers + "|" + black, hide: noReviews + "|" + noRatings, after: 2 * time.Second},
		{name: "v3 does not wait that long", version: "red", ratings: late(7*time.Second, stars), show: readers + "|" + noRatings, hide: red, after: 2500 * time.Millisecond},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := open(t, tt.version, tt.details, tt.ratings)
				if tt.reviews != nil {
					s.services["reviews:9080"] = tt.reviews(s.services["reviews:9080"])
				}
				begin := time.Now()
				w := httptest.NewRecorder()
				s.services["productpage:9080"].ServeHTTP(w, request(t, "/productpage"))
				if took := time.Since(begin); took != tt.after {
					t.Errorf("it took %v, not %v", took, tt.after)
				}
				if kind := w.Header().Get("Content-Type"); w.Code != 200 || kind != "text/html; charset=utf-8" {
					t.Errorf("status %d, %s", w.Code, kind)
				}
				shows(t, w.Body.String(), tt.show, tt.hide)
			})
		})
	}
}

// v2 waits ten seconds for ratings, v3 two and a half.
func TestPatienceOfReviews(t *testing.T) {
	for _, tt := range []struct {
		version string
		late    time.Duration
		want    string
		after   time.Duration
	}{
		{"black", 7 * time.Second, `"rating":{"stars":5,"color":"black"}`, 7 * time.Second},
		{"black", 11 * time.Second, noRatings, 10 * time.Second},
		{"red", 2 * time.Second, `"rating":{"stars":4,"color":"red"}`, 2 * time.Second},
		{"red", 3 * time.Second, noRatings, 2500 * time.Millisecond},
	} {
		t.Run(tt.version+" "+tt.late.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := open(t, tt.version, nil, late(tt.late, ratings.New()))
				begin := time.Now()
				w := httptest.NewRecorder()
				s.services["reviews:9080"].ServeHTTP(w, request(t, "/reviews/0"))
				if took := time.Since(begin); took != tt.after || w.Code != 200 || !strings.Contains(w.Body.String(), tt.want) {
					t.Errorf("after %v: %d %s\nwant %s after %v", took, w.Code, w.Body, tt.want, tt.after)
				}
			})
		})
	}
}

// open opens the four services in the test's bubble; nil is a service as it is.
func open(t *testing.T, version string, books, stars http.Handler) *street {
	t.Helper()
	s := &street{services: map[string]http.Handler{"details:9080": details.New(), "ratings:9080": ratings.New()}}
	client := bookinfo.NewClient()
	client.Transport.(*http.Transport).DialContext = s.dial
	t.Cleanup(func() {
		client.CloseIdleConnections()
		s.close()
	})
	if books != nil {
		s.services["details:9080"] = books
	}
	if stars != nil {
		s.services["ratings:9080"] = stars
	}
	s.services["reviews:9080"] = reviews.New(reviews.Options{
		Stars: version, Pod: "pod-1", Cluster: "null",
		Ratings: bookinfo.Peer{URL: "http://ratings:9080", Within: reviews.Patience(version), Client: client},
	})
	s.services["productpage:9080"] = productpage.New(productpage.Options{
		Details: "http://details:9080", Reviews: "http://reviews:9080", Ratings: "http://ratings:9080", Client: client,
	})
	return s
}

func request(t *testing.T, path string) *http.Request {
	t.Helper()
	return httptest.NewRequestWithContext(t.Context(), http.MethodGet, path, http.NoBody)
}

// shows says what a page lacks of the texts in show, and has of those in hide.
func shows(t *testing.T, page, show, hide string) {
	t.Helper()
	for text := range strings.SplitSeq(show, "|") {
		if !strings.Contains(page, text) {
			t.Errorf("%q is missing in\n%s", text, page)
		}
	}
	for text := range strings.SplitSeq(hide, "|") {
		if text != "" && strings.Contains(page, text) {
			t.Errorf("%q is in\n%s", text, page)
		}
	}
}

// Every service hands the trace and the user on; who the user is, says the session of
// the page and nothing else.
func TestHeadersArePassedOn(t *testing.T) {
	trace := map[string]string{
		"X-Request-Id": "6c5d6e1a-7f27-9e2b-a7b8-7c6e1f0b9d2a",
		"X-B3-Traceid": "e12ef759daff1ddcdb1df3e34fb690a9", "X-B3-Spanid": "db1df3e34fb690a9",
		"X-B3-Parentspanid": "0020000000000001", "X-B3-Sampled": "1", "X-B3-Flags": "0",
		"B3":          "e12ef759daff1ddcdb1df3e34fb690a9-db1df3e34fb690a9-1",
		"Traceparent": "00-e12ef759daff1ddcdb1df3e34fb690a9-db1df3e34fb690a9-01", "Tracestate": "a=b",
		"X-Ot-Span-Context": "c", "X-Datadog-Trace-Id": "1", "Sw8": "2", "Grpc-Trace-Bin": "AAA=", "X-Cloud-Trace-Context": "d",
		"User-Agent": "Browser/1", "Authorization": "Bearer e", "Jwt": "f", "Cookie": "session=amFzb24",
	}
	came := map[string]http.Header{}
	record := func(name string, service http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			came[name] = r.Header.Clone()
			service.ServeHTTP(w, r)
		})
	}
	synctest.Test(t, func(t *testing.T) {
		s := open(t, "red", record("details", details.New()), record("ratings", ratings.New()))
		s.services["reviews:9080"] = record("reviews", s.services["reviews:9080"])
		r := request(t, "/productpage")
		for name, value := range trace {
			r.Header.Set(name, value)
		}
		r.Header.Set("End-User", "somebody else")
		r.Header.Set("X-Other", "stays here")
		s.services["productpage:9080"].ServeHTTP(httptest.NewRecorder(), r)
	})
	trace["End-User"] = "jason"
	for _, service := range []string{"details", "reviews", "ratings"} {
		for name, value := range trace {
			if got := came[service][name]; !slices.Equal(got, []string{value}) {
				t.Errorf("%s: %s is %q, not %q", service, name, got, value)
			}
		}
		if got := came[service].Values("X-Other"); got != nil {
			t.Errorf("%s: X-Other came: %q", service, got)
		}
	}
}

// The API of the page answers with what the services say, and with their status.
func TestAPI(t *testing.T) {
	for _, tt := range []struct {
		path    string
		ratings http.Handler
		status  int
		want    string
	}{
		{"/api/v1/products", nil, 200, `[{"id":0,"title":"The Comedy of Errors","descriptionHtml":"`},
		{"/api/v1/products/0", nil, 200, `{"id":0,"author":"William Shakespeare","year":1595,"type":"paperback","pages":200,"publisher":"PublisherA","language":"English","ISBN-10":"1234567890","ISBN-13":"123-1234567890"}`},
		{"/api/v1/products/7/reviews", nil, 200, `{"id":"7","podname":"pod-1","clustername":"null","reviews":[{"reviewer":"Reviewer1","text":`},
		{"/api/v1/products/7/ratings", nil, 200, `{"id":7,"ratings":{"Reviewer1":5,"Reviewer2":4}}`},
		{"/api/v1/products/0/ratings", failing(503), 503, `{"error":"Sorry, product ratings are currently unavailable for this book."}`},
		{"/api/v1/products/0/ratings", late(time.Hour, ratings.New()), 500, `{"error":"Sorry, product ratings are`},
		{"/api/v1/products/a", nil, 400, `{"error":"please provide a numeric product ID"}`},
		{"/api/v1/products/0/authors", nil, 404, "404 page not found"},
	} {
		t.Run(tt.path, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := open(t, "", nil, tt.ratings)
				w := httptest.NewRecorder()
				s.services["productpage:9080"].ServeHTTP(w, request(t, tt.path))
				if w.Code != tt.status || !strings.HasPrefix(w.Body.String(), tt.want) {
					t.Errorf("%d %s\nwant %d %s", w.Code, w.Body, tt.status, tt.want)
				}
			})
		})
	}
}

// What was posted to ratings is what all see from then on.
func TestPostedRatings(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t, "black", nil, nil)
		client := &http.Client{Transport: &http.Transport{DialContext: s.dial}}
		defer client.CloseIdleConnections()
		answer, err := client.Post("http://ratings:9080/ratings/0", "application/json", strings.NewReader(`{"Reviewer1":2,"Reviewer3":1}`))
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(answer.Body)
		_ = answer.Body.Close()
		if string(body) != `{"id":0,"ratings":{"Reviewer1":2,"Reviewer3":1}}` {
			t.Errorf("ratings answer %s", body)
		}
		w := httptest.NewRecorder()
		s.services["reviews:9080"].ServeHTTP(w, request(t, "/reviews/0"))
		var got bookinfo.Reviews
		if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil || len(got.Reviews) != 2 {
			t.Fatalf("%v: %s", err, w.Body)
		}
		if r := got.Reviews[0].Rating; r == nil || *r != (bookinfo.Rating{Stars: 2, Color: "black"}) {
			t.Errorf("Reviewer1 gave %v", r)
		}
		if r := got.Reviews[1].Rating; r != nil {
			t.Errorf("Reviewer2 gave %v, who gave none", r)
		}
	})
}
