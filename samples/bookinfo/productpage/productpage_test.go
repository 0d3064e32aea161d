package productpage

import (
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"go.uber.org/goleak"
	"golang.org/x/net/http/httpguts"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// serve runs the page on a port, with services that say who asked.
func serve(t *testing.T) (page *httptest.Server, asked *string) {
	t.Helper()
	asked = new(string)
	others := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		*asked = r.Header.Get("End-User")
		_, _ = io.WriteString(w, `{}`)
	}))
	client := &http.Client{Transport: &http.Transport{}}
	page = httptest.NewServer(New(Options{Details: others.URL, Reviews: others.URL, Ratings: others.URL, Client: client}))
	t.Cleanup(func() {
		page.Close()
		client.CloseIdleConnections()
		others.Close()
	})
	return page, asked
}

// browser is a client that keeps cookies and does not follow redirects.
func browser(t *testing.T) *http.Client {
	t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	client := &http.Client{Jar: jar, Transport: &http.Transport{}, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	t.Cleanup(client.CloseIdleConnections)
	return client
}

func do(t *testing.T, client *http.Client, method, url, referer string, form url.Values) (answer *http.Response, body string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(form.Encode()))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	if referer != "" {
		r.Header.Set("Referer", referer)
	}
	if answer, err = client.Do(r); err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer, string(text)
}

// Anybody may sign in as anybody, is greeted, is named to the other services, and may
// leave again.
func TestSession(t *testing.T) {
	page, asked := serve(t)
	client, at := browser(t), page.URL+"/productpage"
	look := func(user, text, none string) {
		t.Helper()
		_, body := do(t, client, "GET", at, "", nil)
		if *asked != user || !strings.Contains(body, text) || strings.Contains(body, none) {
			t.Errorf("end-user is %q, not %q; want %q and not %q in\n%s", *asked, user, text, none, body)
		}
	}
	look("", "Sign in", "sign out")
	for _, name := range []string{"jason", "<b>o'neil</b>", "佐藤"} {
		answer, _ := do(t, client, "POST", page.URL+"/login", at, url.Values{"username": {name}, "passwd": {""}})
		if answer.StatusCode != 302 || answer.Header.Get("Location") != at {
			t.Errorf("%d to %s", answer.StatusCode, answer.Header.Get("Location"))
		}
		if c := answer.Cookies(); len(c) != 1 || c[0].Name != "session" || !c[0].HttpOnly || c[0].Path != "/" {
			t.Errorf("cookies %v", c)
		}
		shown := strings.NewReplacer("<", "&lt;", ">", "&gt;", "'", "&#39;").Replace(name)
		look(name, shown+` (<a href="logout">sign out</a>)`, "Sign in")
	}
	answer, _ := do(t, client, "GET", page.URL+"/logout", at, nil)
	if answer.StatusCode != 302 {
		t.Errorf("logout: %d", answer.StatusCode)
	}
	look("", "Sign in", "sign out")
}

// The browser goes back to where it was, if that is a page of ours.
func TestWayBack(t *testing.T) {
	page, _ := serve(t)
	client := browser(t)
	for referer, want := range map[string]string{
		"":                                       "/productpage",
		page.URL + "/productpage?u=normal":       page.URL + "/productpage?u=normal",
		page.URL + "/":                           page.URL + "/",
		page.URL + "//elsewhere.example/":        page.URL + "//elsewhere.example/",
		"http://elsewhere.example/":              "/productpage",
		"javascript:alert(1)":                    "/productpage",
		"/\x7f":                                  "/productpage",
		"ftp://" + page.Listener.Addr().String(): "/productpage",
	} {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/logout", http.NoBody)
		r.Host = page.Listener.Addr().String()
		r.Header.Set("Referer", referer)
		w := httptest.NewRecorder()
		logout(w, r)
		if got := w.Header().Get("Location"); got != want {
			t.Errorf("from %q to %q, not %q", referer, got, want)
		}
	}
	for _, name := range []string{strings.Repeat("a", 65), "a\r\nb: c", "\xff"} {
		if answer, body := do(t, client, "POST", page.URL+"/login", "", url.Values{"username": {name}}); answer.StatusCode != 400 || len(answer.Cookies()) != 0 {
			t.Errorf("%q signs in: %d %s", name, answer.StatusCode, body)
		}
	}
	large := url.Values{"username": {"jason"}, "passwd": {strings.Repeat("a", maxForm)}}
	if answer, _ := do(t, client, "POST", page.URL+"/login", "", large); len(answer.Cookies()) == 1 && answer.Cookies()[0].MaxAge >= 0 {
		t.Error("a large form signs in")
	}
}

func TestOtherPages(t *testing.T) {
	page, _ := serve(t)
	client := browser(t)
	for _, tt := range []struct {
		method, path string
		status       int
		kind, want   string
	}{
		{"GET", "/", 200, "text/html; charset=utf-8", "<title>Simple Bookstore App</title>"},
		{"GET", "/index.html", 200, "text/html; charset=utf-8", "BookInfo Sample"},
		{"GET", "/health", 200, "text/html; charset=utf-8", "Product page is healthy"},
		{"GET", "/static/bookinfo.css", 200, "text/css; charset=utf-8", ".glyphicon"},
		{"GET", "/static/page.html", 404, "text/plain; charset=utf-8", ""},
		{"GET", "/other", 404, "text/plain; charset=utf-8", ""},
		{"GET", "/login", 405, "text/plain; charset=utf-8", ""},
		{"POST", "/productpage", 405, "text/plain; charset=utf-8", ""},
	} {
		answer, body := do(t, client, tt.method, page.URL+tt.path, "", nil)
		if kind := answer.Header.Get("Content-Type"); answer.StatusCode != tt.status || kind != tt.kind || !strings.Contains(body, tt.want) {
			t.Errorf("%s %s: %d %s\n%s", tt.method, tt.path, answer.StatusCode, kind, body)
		}
	}
	head, none := do(t, client, "HEAD", page.URL+"/productpage", "", nil)
	if _, way := do(t, client, "GET", page.URL+"/", "", nil); len(way) != 1683 { // what articles about circuit breakers show
		t.Errorf("the way to the page has %d bytes", len(way))
	}
	_, body := do(t, client, "GET", page.URL+"/productpage", "", nil)
	if head.ContentLength != int64(len(body)) || none != "" {
		t.Errorf("HEAD tells %d bytes, GET has %d", head.ContentLength, len(body))
	}
	if strings.Contains(body, `src="http`) || strings.Contains(body, `<script`) || strings.Count(body, "http") != strings.Count(body, `<a href="https://en.wikipedia.org`) {
		t.Error("the page loads something from elsewhere")
	}
}

func TestMetrics(t *testing.T) {
	page, _ := serve(t)
	client := browser(t)
	for range 2 {
		do(t, client, "GET", page.URL+"/productpage", "", nil)
	}
	do(t, client, "GET", page.URL+"/api/v1/products/0/ratings", "", nil)
	_, got := do(t, client, "GET", page.URL+"/metrics", "", nil)
	want := "# TYPE request_result_total counter\n" +
		"request_result_total{destination_app=\"details\",response_code=\"200\"} 2\n" +
		"request_result_total{destination_app=\"ratings\",response_code=\"200\"} 1\n" +
		"request_result_total{destination_app=\"reviews\",response_code=\"200\"} 2\n"
	if !strings.HasSuffix(got, want) {
		t.Errorf("metrics are\n%swant\n%s", got, want)
	}
}

// Whatever a browser sends as its session, what comes of it may stand in a header.
func FuzzSession(f *testing.F) {
	for _, seed := range []string{"", "amFzb24", "amFzb24=", "Cg", "_w", strings.Repeat("YWFh", 30)} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, value string) {
		name, ok := parse(value)
		if ok != (name != "") || len(name) > maxName || !httpguts.ValidHeaderFieldValue(name) {
			t.Errorf("%q is %q, %v", value, name, ok)
		}
		if !ok {
			return
		}
		w := httptest.NewRecorder()
		remember(w, name)
		c := w.Result().Cookies()
		if again, ok := parse(c[0].Value); !ok || again != name {
			t.Errorf("%q is remembered as %q", name, again)
		}
	})
}
