// Go-middleware is an API whose items need a live token with the scope
// items:read. Guard.go is the file to copy.
package main

import (
	"fmt"
	"log"
	"net/http"
)

func items(w http.ResponseWriter, r *http.Request) {
	fmt.Fprintf(w, "item %s of %s\n", r.PathValue("id"), r.Context().Value(username{}))
}

func main() {
	http.Handle("GET /items/{id}", guard("http://127.0.0.1:8000", "items:read", http.HandlerFunc(items)))
	log.Fatal(http.ListenAndServe("127.0.0.1:8086", nil))
}
