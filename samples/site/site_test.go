package site

import (
	"net/http/httptest"
	"strings"
	"testing"
)

func TestThePageTellsWhatWasAsked(t *testing.T) {
	w := httptest.NewRecorder()
	r := httptest.NewRequest("GET", "/a<b", nil)
	r.Host = "edition.cnn.com"
	New("News & more").ServeHTTP(w, r)
	for _, want := range []string{"<title>News &amp; more</title>", "You asked edition.cnn.com for /a&lt;b."} {
		if !strings.Contains(w.Body.String(), want) {
			t.Errorf("page lacks %q:\n%s", want, w.Body)
		}
	}
}
