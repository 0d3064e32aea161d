package details

import (
	"io"
	"net/http"
	"net/http/httptest"
	"testing"

	"go.uber.org/goleak"

	"github.com/lateen-mesh/lateen/samples/bookinfo"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func answer(t *testing.T, service http.Handler, path string) *httptest.ResponseRecorder {
	t.Helper()
	w := httptest.NewRecorder()
	service.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), "GET", path, http.NoBody))
	return w
}

func TestAnswers(t *testing.T) {
	service := New()
	for path, want := range map[string]string{
		"/details/0": `{"id":0,"author":"William Shakespeare","year":1595,"type":"paperback","pages":200,"publisher":"PublisherA","language":"English","ISBN-10":"1234567890","ISBN-13":"123-1234567890"}`,
		"/details/x": `{"error":"please provide a numeric product ID"}`,
		"/health":    `{"status":"Details is healthy"}`,
	} {
		w := answer(t, service, path)
		if w.Body.String() != want || w.Header().Get("Content-Type") != "application/json" {
			t.Errorf("%s: %s", path, w.Body)
		}
	}
}

// Version 2 tells what the book service says, or that it does not.
func TestTheBookServiceIsAsked(t *testing.T) {
	for _, tt := range []struct {
		name, says string
		status     int
		want       string
	}{
		{
			"a volume", `{"items":[{"volumeInfo":{"authors":["A","B"],"publisher":"P","publishedDate":"2002-05-01","pageCount":96,"printType":"BOOK","language":"en",
			"industryIdentifiers":[{"type":"ISBN_13","identifier":"9780486424613"},{"type":"ISBN_10","identifier":"0486424618"},{"type":"OTHER","identifier":"x"}]}}]}`,
			200, `{"id":3,"author":"A","year":2002,"type":"paperback","pages":96,"publisher":"P","language":"English","ISBN-10":"0486424618","ISBN-13":"9780486424613"}`,
		},
		{"a volume with little in it", `{"items":[{"volumeInfo":{"publishedDate":"?"}}]}`, 200, `{"id":3,"author":"","year":0,"type":"unknown","pages":0,"publisher":"","language":"unknown","ISBN-10":"","ISBN-13":""}`},
		{"no volume", `{"items":[]}`, 500, `{"error":"the book service does not know the book"}`},
		{"no answer", `-`, 500, `{"error":"the book service does not answer"}`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var asked string
			var came http.Header
			books := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				asked, came = r.URL.String(), r.Header
				_, _ = io.WriteString(w, tt.says)
			}))
			defer books.Close()
			r := httptest.NewRequestWithContext(t.Context(), "GET", "/details/3", http.NoBody)
			for _, name := range []string{"X-Request-Id", "End-User", "Cookie", "Authorization", "Jwt"} {
				r.Header.Set(name, "a=b")
			}
			w := httptest.NewRecorder()
			NewAsking(bookinfo.Peer{URL: books.URL, Within: Patience, Client: books.Client()}).ServeHTTP(w, r)
			if came.Get("X-Request-Id") == "" || came.Get("End-User")+came.Get("Cookie")+came.Get("Authorization")+came.Get("Jwt") != "" {
				t.Errorf("the book service sees %v", came)
			}
			if w.Code != tt.status || w.Body.String() != tt.want || asked != "/books/v1/volumes?q=isbn:0486424618" {
				t.Errorf("asked for %s: %d %s\nwant %d %s", asked, w.Code, w.Body, tt.status, tt.want)
			}
		})
	}
}
