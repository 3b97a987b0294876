"""The index of an export: where it is kept (`locate`), how it is built (`build`) and opened (`open`)."""
