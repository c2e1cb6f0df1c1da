"""An API in one file, as a resource server of Django OAuth Toolkit."""

import os
import time
from pathlib import Path

import django
from django.conf import settings
from django.core.management import call_command
from django.http import HttpResponse
from django.urls import path

# Django does so itself where the settings are a module. East of UTC, a revoked token would be let in for hours.
os.environ["TZ"] = "UTC"
time.tzset()
settings.configure(
    ALLOWED_HOSTS=["127.0.0.1"],
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": Path(__file__).with_name("db.sqlite3")}},
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
    INSTALLED_APPS=["django.contrib.auth", "django.contrib.contenttypes", "oauth2_provider"],
    OAUTH2_PROVIDER={
        "RESOURCE_SERVER_INTROSPECTION_URL": "http://127.0.0.1:8000/introspect",
        "RESOURCE_SERVER_INTROSPECTION_CREDENTIALS": ("items-service", "battery staple"),
        # For so long it lets a revoked token through: ten hours if this is not set.
        "RESOURCE_SERVER_TOKEN_CACHING_SECONDS": 1,
        "SCOPES": {"items:read": "Read items"},
    },
    ROOT_URLCONF=__name__,
    SECRET_KEY="not used",
    # It takes exp for a time of this zone. East of UTC, a token ends hours too early.
    TIME_ZONE="UTC",
    USE_TZ=True,
)
django.setup()

from oauth2_provider.decorators import protected_resource  # noqa: E402, which needs the settings


@protected_resource(scopes=["items:read"])
def items(request):
    return HttpResponse(request.resource_owner.username)


urlpatterns = [path("items/1", items)]

if __name__ == "__main__":
    call_command("migrate", verbosity=0)
    call_command("runserver", "127.0.0.1:8080", use_reloader=False)
