// Package details is the service that knows a book: author, year, pages, ISBN.
//
//	GET /details/ID   the book; every number is the same one
//	GET /health
package details

import (
	"net/http"

	"github.com/lateen-mesh/lateen/samples/bookinfo"
)

// New returns the service.
func New() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /health", bookinfo.Healthy("Details"))
	mux.HandleFunc("GET /details/{id}", func(w http.ResponseWriter, r *http.Request) {
		if id, ok := bookinfo.BookID(w, r); ok {
			bookinfo.Reply(w, http.StatusOK, book(id))
		}
	})
	return mux
}

func book(id int) bookinfo.Details {
	return bookinfo.Details{
		ID: id, Author: "William Shakespeare", Year: 1595, Type: "paperback", Pages: 200,
		Publisher: "PublisherA", Language: "English", ISBN10: "1234567890", ISBN13: "123-1234567890",
	}
}
