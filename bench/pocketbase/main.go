// Pocketbase is PocketBase with one user, johndoe@example.com, whose password is
// "correct horse": a peer of the benchmark, in a module of its own.
//
//	pocketbase ADDR FOLDER
package main

import (
	"log"
	"os"

	"github.com/pocketbase/pocketbase"
	"github.com/pocketbase/pocketbase/apis"
	"github.com/pocketbase/pocketbase/core"
)

func main() {
	app := pocketbase.NewWithConfig(pocketbase.Config{DefaultDataDir: os.Args[2], HideStartBanner: true})
	app.OnServe().BindFunc(func(e *core.ServeEvent) error {
		users, err := app.FindCollectionByNameOrId("users")
		if err != nil {
			return err
		}
		johndoe := core.NewRecord(users)
		johndoe.SetEmail("johndoe@example.com")
		johndoe.SetPassword("correct horse")
		if err := app.Save(johndoe); err != nil {
			return err
		}
		return e.Next()
	})
	if err := app.Bootstrap(); err != nil {
		log.Fatal(err)
	}
	log.Fatal(apis.Serve(app, apis.ServeConfig{HttpAddr: os.Args[1]}))
}
