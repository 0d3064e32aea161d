package details

import (
	"net/http/httptest"
	"testing"
)

func TestAnswers(t *testing.T) {
	service := New()
	for path, want := range map[string]string{
		"/details/0": `{"id":0,"author":"William Shakespeare","year":1595,"type":"paperback","pages":200,"publisher":"PublisherA","language":"English","ISBN-10":"1234567890","ISBN-13":"123-1234567890"}`,
		"/details/x": `{"error":"please provide a numeric product ID"}`,
		"/health":    `{"status":"Details is healthy"}`,
	} {
		w := httptest.NewRecorder()
		service.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), "GET", path, nil))
		if w.Body.String() != want || w.Header().Get("Content-Type") != "application/json" {
			t.Errorf("%s: %s", path, w.Body)
		}
	}
}
