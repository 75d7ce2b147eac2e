"""What Holdfast's hot path is measured against: an empty FastAPI endpoint with the same Pydantic body."""

from fastapi import FastAPI

from app.http.schemas import ReservationRequest

app = FastAPI()


@app.post("/v1/sales/{sale_id}/reservations", status_code=201)
async def reserve(sale_id: str, body: ReservationRequest) -> dict[str, str]:
    """Answers a constant: no token, no store, no stock."""
    return {"id": "res_00000000000000000000000000", "sale_id": sale_id}
